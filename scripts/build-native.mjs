// Builds the native addon from source with cmake-js into build/Release/lorax.node and, where the
// machine has nvcc, the CUDA backend into build/Release/lorax_cuda.so. Nothing is downloaded: the
// headers are npm dependencies (node-api-headers, node-addon-api). Node built-ins only at import
// time. Called by bootstrap.mjs, install.mjs and `npx lorax-js build`.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
export const addonPath = path.join(root, 'build', 'Release', 'lorax.node');
export const cudaPluginPath = path.join(root, 'build', 'Release', 'lorax_cuda.so');
/** What a release runs on: code for each, and PTX for newer devices. */
const RELEASE_ARCHITECTURES = '80-real;86-real;89-real;90a-real;90-virtual';

const runs = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** What a source build needs and this machine lacks, each with what to do about it. */
function missingTools() {
  const missing = [];
  if (!runs('cmake')) missing.push('CMake >= 3.22 (cmake.org, or your package manager)');
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);
  if (process.platform !== 'win32' && !compilers.some(runs)) {
    missing.push('a C++20 compiler (g++ >= 11 or clang >= 14; on Debian: apt install g++)');
  }
  return missing;
}

/** The nvcc that a CUDA build takes (cmake/LoraxCuda.cmake looks at the same places), or undefined. */
export function findNvcc() {
  if (process.platform !== 'linux') return undefined;
  const { CUDACXX, CUDA_HOME, CUDA_PATH, PATH = '' } = process.env;
  const folders = [CUDA_HOME, CUDA_PATH].filter(Boolean).map((home) => path.join(home, 'bin'));
  const candidates = [...folders, ...PATH.split(path.delimiter), '/usr/local/cuda/bin'];
  return [CUDACXX, ...candidates.map((folder) => path.join(folder, 'nvcc'))]
    .filter(Boolean)
    .find((file) => fs.existsSync(file));
}

/**
 * Builds, and never throws for what a user's machine may lack. A CUDA backend that does not build
 * leaves the addon alone, with `cuda` saying so, unless `strict`.
 * @param {{ strict?: boolean }} options strict: as checkouts and CI build: warnings are errors, the
 *   CUDA backend is for one architecture, and there is what tests open
 * @returns {{ ok: true, cuda: string, output?: string } | { ok: false, reason: string, output: string }}
 */
export function buildNative({ strict = false } = {}) {
  const nvcc = findNvcc();
  if (!nvcc) return built(configureAndBuild(strict, 'OFF'), 'not built: no nvcc on this machine');
  const withCuda = configureAndBuild(strict, 'ON');
  if (withCuda.ok || strict) return built(withCuda, `built with ${nvcc}`);
  const alone = built(configureAndBuild(strict, 'OFF'), `not built: ${nvcc} failed`);
  return alone.ok ? { ...alone, output: withCuda.output } : alone;
}

/** Those of this machine's GPUs; where it shows none, all (one will do for a checkout's tests). */
export function architectures(strict) {
  const query = ['--query-gpu=compute_cap', '--format=csv,noheader'];
  const { stdout } = spawnSync('nvidia-smi', query, { encoding: 'utf8' });
  const capabilities = [...new Set(stdout?.match(/^\d+\.\d$/gm))];
  const known = { '8.0': '80-real', '8.6': '86-real', '8.9': '89-real', '9.0': '90a-real' };
  if (capabilities.length > 0 && capabilities.every((each) => each in known)) {
    return capabilities.map((each) => known[each]).join(';');
  }
  return strict ? '90a-real' : RELEASE_ARCHITECTURES;
}

function built(result, cuda) {
  return result.ok ? { ...result, cuda } : result;
}

/** @param {boolean} strict @param {'ON' | 'OFF'} cuda */
function configureAndBuild(strict, cuda) {
  const missing = missingTools();
  if (missing.length > 0) {
    return { ok: false, reason: `missing: ${missing.join('; ')}`, output: '' };
  }
  let cmakeJs;
  try {
    cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
  } catch {
    return { ok: false, reason: 'missing: the npm package cmake-js (run npm install)', output: '' };
  }
  const args = ['--directory', root, '--out', path.join(root, 'build')];
  // A build directory keeps the generator it was made with.
  const cache = path.join(root, 'build', 'CMakeCache.txt');
  const generator = fs.existsSync(cache)
    ? /^CMAKE_GENERATOR:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1]
    : undefined;
  if (generator) args.push('--generator', generator);
  else if (runs('ninja')) args.push('--generator', 'Ninja');
  args.push(
    '--parallel',
    String(os.availableParallelism()),
    '--CDLORAX_BUILD_ADDON=ON',
    `--CDLORAX_WERROR=${strict ? 'ON' : 'OFF'}`,
    `--CDLORAX_BUILD_TEST_PLUGIN=${strict ? 'ON' : 'OFF'}`,
    `--CDLORAX_CUDA=${cuda}`,
    `--CDLORAX_CUDA_ARCHITECTURES=${architectures(strict)}`,
  );
  // Of an earlier version it would be refused when it is opened.
  if (cuda === 'OFF') fs.rmSync(cudaPluginPath, { force: true });
  // Not `compile`, which answers a compiler error by deleting the directory and trying again.
  let output = '';
  for (const command of ['configure', 'build']) {
    const result = spawnSync(process.execPath, [cmakeJs, command, ...args], {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    output += `${result.stdout ?? ''}${result.stderr ?? ''}`;
    if (result.error) return { ok: false, reason: result.error.message, output };
    if (result.status !== 0) {
      return { ok: false, reason: `the C++ build failed (cmake-js ${command})`, output };
    }
  }
  if (!fs.existsSync(addonPath)) {
    return { ok: false, reason: `the build left no ${addonPath}`, output };
  }
  return { ok: true };
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const result = buildNative({ strict: process.argv.includes('--strict') });
  if (result.ok) {
    // Of a CUDA backend that failed to build.
    if (result.output) process.stderr.write(result.output);
    process.stdout.write(`lorax-js: built ${addonPath}\nlorax-js: CUDA backend ${result.cuda}\n`);
  } else {
    process.stderr.write(`${result.output}\nlorax-js: not built: ${result.reason}\n`);
    process.exitCode = 1;
  }
}
