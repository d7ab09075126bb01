// `npm run check:smollm2`: "Right" and "Exact" on a real model, too heavy for every `npm test`.
//
// Fetches SmolLM2, makes the adapters and goldens with PyTorch and PEFT (once; about ten minutes),
// then runs test/smollm2. Needs Python 3; `--python PATH` names one that has torch, transformers and
// peft already.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { report, runVitest } from './test.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({ options: { python: { type: 'string' } } });
const goldens = path.join(root, '.cache/goldens/smollm2');

run(process.execPath, [path.join(root, 'scripts/fetch-smollm2.mjs')]);
if (!existsSync(path.join(goldens, 'index.json'))) {
  const python = values.python ?? preparePython();
  const scripts = path.join(root, 'test/golden/smollm2');
  run(python, [path.join(scripts, 'make_adapters.py')]);
  run(python, [path.join(scripts, 'make_goldens.py'), '--resume']);
}
process.env.LORAX_TEST_SMOLLM2 = '1';
report([runVitest({ args: ['test/smollm2/'] })]);

function preparePython() {
  const home = path.join(root, '.cache/goldens/venv');
  const python = path.join(home, 'bin/python');
  if (!existsSync(python)) {
    run('python3', ['-m', 'venv', home]);
    run(python, ['-m', 'pip', 'install', 'torch', 'transformers==5.17.0', 'peft==0.21.0']);
  }
  return python;
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (status === 0) return;
  console.error(
    `check:smollm2: \`${command} ${args.join(' ')}\` failed${error ? `: ${error.message}` : ''}`,
  );
  process.exit(1);
}
