// Builds the native addon from source with cmake-js into build/Release/lorax.node. Nothing is
// downloaded: the headers are npm dependencies (node-api-headers, node-addon-api). Node built-ins
// only at import time. Called by bootstrap.mjs, install.mjs and `npx lorax-js build`.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
export const addonPath = path.join(root, 'build', 'Release', 'lorax.node');

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

/**
 * Builds, and never throws for what a user's machine may lack.
 * @param {{ strict?: boolean }} options strict: warnings are errors (checkouts, CI)
 * @returns {{ ok: true } | { ok: false, reason: string, output: string }}
 */
export function buildNative({ strict = false } = {}) {
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
  );
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
  const built = buildNative({ strict: process.argv.includes('--strict') });
  if (built.ok) {
    process.stdout.write(`lorax-js: built ${addonPath}\n`);
  } else {
    process.stderr.write(`${built.output}\nlorax-js: not built: ${built.reason}\n`);
    process.exitCode = 1;
  }
}
