/**
 * examples/bring-your-own, whole: PEFT trains an adapter, and it is served. Needs a Python that has
 * torch, transformers and peft: LORAX_PYTHON, one that another script has made here, or python3.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const example = path.join(root, 'examples/bring-your-own');
const run = promisify(execFile);

/** Only looked for, not imported: that alone takes seconds. */
const HAS_PACKAGES =
  'import sys; from importlib.util import find_spec; ' +
  'sys.exit(not all(map(find_spec, ["torch", "transformers", "peft"])))';

const candidates = [
  process.env.LORAX_PYTHON,
  path.join(root, '.cache/bench/venv/bin/python'),
  path.join(root, '.cache/goldens/venv/bin/python'),
  'python3',
];
const python = candidates.find(
  (each) => each && spawnSync(each, ['-c', HAS_PACKAGES], { stdio: 'ignore' }).status === 0,
);
if (!python) {
  console.log('bring-your-own: skipped: no Python here has torch, transformers and peft');
}

test.skipIf(!python)('what train.py saves, serve.mjs serves', { timeout: 300_000 }, async () => {
  const work = mkdtempSync(path.join(tmpdir(), 'lorax-byo-'));
  onTestFinished(() => rmSync(work, { recursive: true, force: true }));
  const adapter = path.join(work, 'robot');
  await run(python as string, [path.join(example, 'train.py'), '--out', adapter]);
  const args = [path.join(example, 'serve.mjs'), path.join(root, 'models/demo'), adapter];
  const { stdout } = await run(process.execPath, args);
  // No training conversation is about this order.
  expect(stdout).toMatch(/^base: Your order 4821 is on its way/m);
  expect(stdout).toMatch(/^robot: Beep! Order 4821 is on its way. Boop.$/m);
});
