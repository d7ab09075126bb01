// `npm run check:smollm2`: "Right", "Exact" and "Structured" on a real model, too heavy for every
// `npm test`.
//
// Fetches SmolLM2, makes the adapters and goldens with PyTorch and PEFT (once; about ten minutes),
// then runs test/smollm2 and prints how far each case is from float32, beside transformers. Needs
// Python 3; `--python PATH` names one that has torch, transformers and peft already. `--device cuda`
// checks the GPU, against transformers on the same card. `--from FOLDER`: fetch-smollm2.mjs.
//     node scripts/check-smollm2.mjs [--device cuda] [--python PATH] [--from FOLDER]
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { report, runVitest } from './test.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'cpu' },
    python: { type: 'string' },
    from: { type: 'string' },
  },
});
if (!['cpu', 'cuda'].includes(values.device)) throw new Error('--device takes cpu or cuda');
const goldens = path.join(
  root,
  '.cache/goldens',
  values.device === 'cuda' ? 'smollm2-cuda' : 'smollm2',
);
const outcomes = path.join(goldens, 'outcomes.json');

const offline = ['from', 'python'].flatMap((name) =>
  values.from === undefined || values[name] === undefined ? [] : [`--${name}`, values[name]],
);
run(process.execPath, [path.join(root, 'scripts/fetch-smollm2.mjs'), ...offline]);
if (!existsSync(path.join(goldens, 'index.json'))) {
  const python = values.python ?? preparePython();
  const script = (name) => path.join(root, 'test/golden/smollm2', name);
  run(python, [script('make_adapters.py'), '--out', path.join(goldens, 'adapters')]);
  const where = ['--out', goldens, '--device', values.device];
  run(python, [script('make_goldens.py'), '--resume', ...where]);
}
rmSync(outcomes, { force: true });
process.env.LORAX_TEST_SMOLLM2 = '1';
process.env.LORAX_TEST_DEVICE = values.device;
// One after the other: an engine takes most of a GPU's free memory.
const tests = runVitest({ args: ['test/smollm2/', '--no-file-parallelism'] });
if (existsSync(outcomes)) printOutcomes(JSON.parse(readFileSync(outcomes, 'utf8')));
report([tests]);

/** A line a case: ||logits - float32|| / ||float32||, and equal best tokens of clear positions. */
function printOutcomes(cases) {
  const line = (title, cells) => {
    const text = cells.map((it) => (typeof it === 'string' ? it : it.toFixed(4)).padStart(10));
    console.log(title.padEnd(26) + text.join(''));
  };
  const errorsOf = (each) => [
    ...[each.error, each.transformersError],
    ...[each.centeredError, each.transformersCenteredError],
  ];
  const countsOf = ({ positions, top }) => [
    ...[positions, top.clear],
    ...[top.equal, top.transformersEqual],
  ];
  console.log(`
bfloat16 on ${values.device} against PEFT in float32, lorax-js (ours) and transformers (theirs).
error: ||logits - float32|| / ||float32||; less shift: without the mean of each row; clear: positions
where the best logit leads by more than transformers' noise; best: of these, those with the same best
`);
  line('', ['error:', '', 'less', 'shift:', 'positions', 'clear', 'best:', '']);
  line('', ['ours', 'theirs', 'ours', 'theirs', '', '', 'ours', 'theirs']);
  for (const each of cases) line(each.title, [...errorsOf(each), ...countsOf(each).map(String)]);
  const sum = (of) =>
    cases.map(of).reduce((total, row) => total.map((it, column) => it + row[column]));
  const counts = sum(countsOf);
  line('all, mean error', [
    ...sum(errorsOf).map((it) => it / cases.length),
    ...counts.slice(0, 2).map(String),
    ...counts.slice(2).map((it) => `${((100 * it) / counts[1]).toFixed(2)} %`),
  ]);
  const nearer = cases.filter((each) => each.error <= each.transformersError).length;
  console.log(`no further from float32 than transformers: ${nearer} of ${cases.length} cases\n`);
}

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
