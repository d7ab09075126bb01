// Fetches and makes what the peers need, once: SmolLM2, node-llama-cpp, adapters, GGUF files.
//
// Everything lands in .cache/ and bench/node_modules. What cannot be had is named, and its peers are
// left out by run.mjs. Or, with nothing fetched, makes SmolLM2's shape from random numbers.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeAdapters } from './gpu/make-adapters.mjs';
import { makeModel, SHAPES } from './gpu/make-model.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const inRoot = (...parts) => path.join(root, ...parts);

export const PLACES = {
  root,
  model: inRoot('.cache/models/SmolLM2-135M-Instruct'),
  adapters: inRoot('.cache/bench/adapters'),
  gguf: inRoot('.cache/bench/gguf'),
  python: inRoot('.cache/bench/venv/bin/python'),
  llama: inRoot('bench/node_modules/node-llama-cpp'),
};

/** A model and 8 adapters of SmolLM2's shape in `folder`, for lorax-js and transformers. */
export async function setUpDummy(folder, python) {
  const shape = SHAPES['smollm2-135m'];
  await makeModel(folder, shape);
  await makeAdapters(folder, shape, 8);
  return { ...PLACES, model: folder, adapters: path.join(folder, 'adapters'), python };
}

const PYTHON_PACKAGES = ['torch', 'transformers==5.17.0', 'peft==0.21.0', 'gguf==0.19.0'];

/** Returns the reasons why something is missing; empty when all is there. */
export function setUp() {
  const missing = [];
  const step = (what, isThere, command, args) => {
    if (isThere()) return true;
    process.stdout.write(`bench: ${what} ...\n`);
    const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
    if (done.status === 0 && isThere()) return true;
    missing.push(`${what}: \`${command} ${args.join(' ')}\` failed`);
    return false;
  };
  const there = (file) => () => existsSync(file);

  step('fetching SmolLM2', there(path.join(PLACES.model, 'model.safetensors')), process.execPath, [
    inRoot('scripts/fetch-smollm2.mjs'),
  ]);
  // Not `npm ci`: it refuses a lock without every platform's optional binary, and a registry mirror
  // may lack some. `--no-save` leaves the lock as it is.
  step('installing node-llama-cpp (725 MB)', there(PLACES.llama), 'npm', [
    'install',
    '--no-save',
    '--prefix',
    inRoot('bench'),
  ]);
  const python =
    step('making a Python environment', there(PLACES.python), 'python3', [
      '-m',
      'venv',
      inRoot('.cache/bench/venv'),
    ]) &&
    step('installing torch, transformers, PEFT', hasPythonPackages, PLACES.python, [
      '-m',
      'pip',
      'install',
      '--quiet',
      ...PYTHON_PACKAGES,
    ]);
  if (python) {
    step('making 8 adapters', there(path.join(PLACES.adapters)), PLACES.python, [
      inRoot('bench/peers/make-adapters.py'),
    ]);
    step('making GGUF files', there(path.join(PLACES.gguf, 'model-Q8_0.gguf')), PLACES.python, [
      inRoot('bench/peers/make-gguf.py'),
    ]);
  }
  return missing;
}

function hasPythonPackages() {
  const code = 'import torch, transformers, peft, gguf';
  return spawnSync(PLACES.python, ['-c', code], { stdio: 'ignore' }).status === 0;
}
