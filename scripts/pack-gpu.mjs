// Fills .gpu/ with what a GPU machine without Node and without a network needs beside a checkout:
// Node itself, the built package with its CUDA backend, the native tests, the programs of bench/gpu,
// and the packages that end-to-end tests and benchmarks import. About 40 MB; `node.xz` is made once.
// Builds first, with the machine's nvcc or one from setup-cuda.mjs. There, scripts/test-gpu unpacks it,
// takes the sources from the checkout beside it, and runs it.
//     node scripts/pack-gpu.mjs [more built files or folders]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { commitOf } from '../bench/machine.mjs';
import { findNvcc } from './build-native.mjs';
import { setupCuda } from './setup-cuda.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const out = path.join(root, '.gpu');

// Stripped executables, in the archive as .gpu/*: in .gpu/ itself they would travel twice.
const staging = path.join(root, 'build', 'packed');

const BUILT = ['dist', 'build/Release'];
const NATIVE_TESTS = ['lorax_cuda_tests', 'lorax_tests'];
/** Of bench/gpu; land in .gpu/bench. */
const BENCHES = ['decode_bench', 'engine_bench', 'load_bench'];
/** devDependencies that end-to-end tests import. */
const TEST_PACKAGES = [
  ...['vitest', 'ai', 'ai6', '@ai-sdk/provider', '@opentelemetry/api', 'zod', 'ajv', 'ajv-formats'],
  'aws4fetch',
  ...['@langchain/core', '@langchain/langgraph', 'langchain', 'express', 'fastify', 'hono'],
  ...['@hono/node-server', '@huggingface/tokenizers', '@huggingface/jinja', 'openai'],
];
const NEEDLESS = ['*.map', '*.md', '*.d.ts', '*.d.mts', '*.d.cts', '*.o', '*.a', 'CMakeFiles'];

function run(command, args, env = {}) {
  const child = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ...env },
  });
  if (child.status !== 0) {
    throw new Error(`${command} ${args[0]} failed (${child.error?.message ?? child.status})`);
  }
}

/** Folders of `names` and of everything they depend on, as package-lock.json placed them. */
function installedFolders(names) {
  const lock = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8')).packages;
  const folders = new Set();
  const visit = (name, from) => {
    // As Node resolves: the nearest node_modules, going up.
    for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('node_modules/') - 1))) {
      const folder = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
      if (folder in lock) {
        if (folders.has(folder) || !fs.existsSync(path.join(root, folder))) return;
        folders.add(folder);
        const { dependencies, optionalDependencies } = lock[folder];
        const needs = { ...dependencies, ...optionalDependencies };
        for (const need of Object.keys(needs)) visit(need, folder);
        return;
      }
      if (at === '') return; // an optional one that was not installed
    }
  };
  for (const name of names) visit(name, '');
  return [...folders];
}

function pack(more) {
  const made = findNvcc()
    ? { ok: true, nvcc: findNvcc() }
    : setupCuda({ say: (line) => process.stderr.write(`pack-gpu: ${line}\n`) });
  if (!made.ok) throw new Error(made.reason);
  const env = { CUDACXX: made.nvcc };
  run(process.execPath, ['scripts/bootstrap.mjs'], env);
  run(process.execPath, ['scripts/test.mjs', '--only', 'cuda'], env);
  const jobs = ['--parallel', String(os.availableParallelism())];
  run('cmake', ['--build', 'build/tests', ...jobs, '--target', 'lorax_tests'], env);
  // In the addon's build: the CUDA backend, as users run it, is compiled there already.
  run('cmake', ['-S', root, '-B', 'build', '-DLORAX_BUILD_GPU_BENCH=ON'], env);
  run('cmake', ['--build', 'build', ...jobs, '--target', ...BENCHES], env);

  fs.mkdirSync(out, { recursive: true });
  const node = path.join(out, 'node');
  if (!fs.existsSync(`${node}.xz`)) {
    fs.copyFileSync(process.execPath, node);
    fs.chmodSync(node, 0o755);
    run('strip', [node]);
    run('xz', ['-6', '-T0', node]);
  }
  const executables = path.join(staging, '.gpu');
  fs.rmSync(staging, { recursive: true, force: true });
  fs.mkdirSync(path.join(executables, 'bench'), { recursive: true });
  for (const name of NATIVE_TESTS) {
    run('strip', ['-o', path.join(executables, name), path.join(root, 'build/tests', name)]);
  }
  for (const name of BENCHES) {
    run('strip', ['-o', path.join(executables, 'bench', name), path.join(root, 'build', name)]);
  }
  fs.writeFileSync(path.join(executables, 'commit'), `${commitOf(root)}\n`);
  // cmake-js builds the addon, which is built already.
  const { dependencies } = createRequire(import.meta.url)('../package.json');
  const runtime = Object.keys(dependencies).filter((name) => name !== 'cmake-js');
  const folders = installedFolders([...runtime, ...TEST_PACKAGES]);
  const archive = path.join(out, 'app.tar.xz');
  const exclude = NEEDLESS.map((pattern) => `--exclude=${pattern}`);
  const files = [...BUILT, ...more, ...folders, '-C', staging, '.gpu'];
  // The same kernels are in several programs: far apart, so a large window.
  run('tar', ['-cJf', archive, ...exclude, ...files], { XZ_OPT: '--lzma2=preset=6,dict=96MiB' });
  for (const name of ['node.xz', 'app.tar.xz']) {
    const megabytes = fs.statSync(path.join(out, name)).size / 1e6;
    process.stdout.write(`pack-gpu: .gpu/${name}  ${megabytes.toFixed(1)} MB\n`);
  }
}

try {
  pack(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`pack-gpu: ${error.message}\n`);
  process.exitCode = 1;
}
