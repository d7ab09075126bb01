// Runs every suite and counts from the runners' own reports: GoogleTest (built here; skipped by
// name where the machine lacks it), the CUDA backend's (every .cu is compiled; tests that need a
// device are counted as skipped where there is none), then vitest. The last line is exactly
// `N passed, N failed, N skipped`. A runner that fails, reports nothing or ran no test fails the
// whole; likewise the clients of other languages (test-clients.mjs). `--only native|cuda|vitest|clients`
// runs one of them, `--sanitize` builds the native tests with
// ASan and UBSan; arguments after `--` go to vitest. Called by `npm test` and .ci/run.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { architectures, cudaPluginPath, findNvcc } from './build-native.mjs';
import { isCudaSetUp, setupCuda } from './setup-cuda.mjs';
import { runClientTests } from './test-clients.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const runs = (command, args = ['--version']) =>
  spawnSync(command, args, { stdio: 'ignore' }).status === 0;
const say = (line) => process.stdout.write(`${line}\n`);

/** Counts of one runner; `ok` is false when it failed in a way no single test shows. */
const result = (passed, failed, skipped, ok = true) => ({ passed, failed, skipped, ok });

/** Runs with the output shown; true for exit status 0. */
function shown(command, args, env = {}) {
  const child = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (child.error) say(`test: cannot run ${command}: ${child.error.message}`);
  return child.status === 0;
}

/** Runs quietly; the output is shown on failure only. */
function quiet(command, args) {
  const child = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (child.status !== 0) process.stdout.write(`${child.stdout ?? ''}${child.stderr ?? ''}`);
  return child.status === 0;
}

function readReport(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    say(`test: no usable report at ${file}: ${error.message}`);
    return undefined;
  }
}

/** Test files of one native suite. */
function nativeSources(suite) {
  const folder = path.join(root, 'test', 'native');
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('_test.cc'))
    .filter((name) => (name.split(path.sep)[0] === 'cuda') === (suite === 'cuda'));
}

/** True when configuring `build` failed for want of GoogleTest. */
function lacksGoogleTest(build) {
  const cache = path.join(build, 'CMakeCache.txt');
  return fs.existsSync(cache) && fs.readFileSync(cache, 'utf8').includes('GTest_DIR-NOTFOUND');
}

/**
 * Configures and builds `targets` of a native suite; a result where that is all there is to say,
 * else undefined.
 */
function buildSuite({ name, suite, build, options, targets, env = {} }) {
  const sources = nativeSources(suite);
  if (sources.length === 0) {
    say(`test: ${name}: there are no test files in test/native`);
    return result(0, 0, 0, false);
  }
  const configure = ['-S', root, '-B', build, '-DLORAX_BUILD_TESTS=ON', '-DLORAX_WERROR=ON'];
  configure.push('-DCMAKE_BUILD_TYPE=RelWithDebInfo', ...options);
  if (!fs.existsSync(path.join(build, 'CMakeCache.txt')) && runs('ninja')) {
    configure.push('-G', 'Ninja');
  }
  say(`test: ${name}: building ...`);
  const environment = { ...process.env, ...env };
  const configured = spawnSync('cmake', configure, {
    cwd: root,
    encoding: 'utf8',
    env: environment,
  });
  if (configured.status !== 0 && lacksGoogleTest(build)) {
    say(`test: ${name}: GoogleTest is not installed (Debian: apt install libgtest-dev):`);
    say(`test: ${name}: skipped, and counted as such, ${sources.length} test files`);
    return result(0, 0, sources.length);
  }
  if (configured.status !== 0) process.stdout.write(`${configured.stdout}${configured.stderr}`);
  const jobs = String(os.availableParallelism());
  const compile = ['--build', build, '--parallel', jobs, '--target', ...targets];
  if (configured.status === 0 && quiet('cmake', compile)) return undefined;
  say(`test: ${name}: the build failed`);
  return result(0, 0, 0, false);
}

/** Both halves of a GoogleTest executable at once: "$0" is it, "$1" where their reports go. */
const HALVES = `
half() { GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=$3 "$1" --gtest_brief=1 "--gtest_output=json:$2.$3"; }
half "$0" "$1" 1 &
half "$0" "$1" 0
first=$?
wait $! && [ $first -eq 0 ]
`;

/** Runs a GoogleTest executable, in two processes where `halves`, and counts from its reports. */
function runGoogleTests(build, target, env = {}, halves = false) {
  const report = path.join(build, `${target}.json`);
  const reports = halves ? [`${report}.0`, `${report}.1`] : [report];
  for (const each of reports) fs.rmSync(each, { force: true });
  const executable = path.join(build, process.platform === 'win32' ? `${target}.exe` : target);
  const ran = halves
    ? shown('sh', ['-c', HALVES, executable, report], env)
    : shown(executable, ['--gtest_brief=1', `--gtest_output=json:${report}`], env);
  const found = reports.map(readReport);
  const ok = ran && found.every(Boolean);
  const [json] = found;
  const suites = found.flatMap((each) => each?.testsuites ?? []);
  const tests = suites.flatMap((each) => each.testsuite);
  const failed = tests.filter((test) => test.failures?.length > 0).length;
  // DISABLED_ tests are NOTRUN, GTEST_SKIP() ones SKIPPED.
  const skipped = tests.filter((test) => test.status === 'NOTRUN' || test.result === 'SKIPPED');
  const passed = tests.length - failed - skipped.length;
  // What test/native/cuda/main.cc left out for want of a device.
  const withoutDevice = Number(json?.device_tests_skipped ?? 0);
  return result(passed, failed, skipped.length + withoutDevice, ok && passed + failed > 0);
}

export function runNativeTests({ sanitize = false } = {}) {
  const name = sanitize ? 'native (ASan, UBSan)' : 'native';
  const build = path.join(root, 'build', sanitize ? 'sanitize' : 'tests');
  const cuda = sanitize ? { options: ['-DLORAX_CUDA=OFF'] } : cudaSettings('AUTO');
  const options = [`-DLORAX_SANITIZE=${sanitize ? 'ON' : 'OFF'}`, ...cuda.options];
  const targets = ['lorax_tests'];
  const early = buildSuite({ name, suite: 'cpu', build, options, targets, env: cuda.env });
  if (early) return early;
  const env = { UBSAN_OPTIONS: 'print_stacktrace=1', ASAN_OPTIONS: 'detect_leaks=1' };
  // Instrumented, they take minutes on one core.
  return runGoogleTests(build, 'lorax_tests', env, sanitize && process.platform !== 'win32');
}

/** The nvcc that there is: the machine's, or one that setup-cuda.mjs made. */
const presentNvcc = () => findNvcc() ?? (isCudaSetUp() ? setupCuda().nvcc : undefined);

/** Of the build that the native and the CUDA suite share: the same for both. */
function cudaSettings(mode) {
  const nvcc = presentNvcc();
  if (nvcc === undefined) return { options: ['-DLORAX_CUDA=OFF'] };
  const architecture = `-DLORAX_CUDA_ARCHITECTURES=${architectures(true)}`;
  return { options: [`-DLORAX_CUDA=${mode}`, architecture], env: { CUDACXX: nvcc } };
}

/** In CI an nvcc is made where the machine has none; elsewhere that is for the user to ask for. */
function provideNvcc() {
  if (presentNvcc()) return { ok: true };
  if (process.env.CI) return setupCuda({ say: (line) => say(`test: cuda: ${line}`) });
  const reason = 'no nvcc on this machine; `node scripts/setup-cuda.mjs` makes one (500 MB)';
  return { ok: false, reason };
}

/** The CUDA backend to pack and install: the addon's own, else what runCudaTests compiled. */
export function builtCudaPlugin() {
  const tested = path.join(root, 'build', 'tests', 'lorax_cuda.so');
  return [cudaPluginPath, tested].find((file) => fs.existsSync(file));
}

/** Compiles the whole CUDA backend, also without a GPU, and runs what this machine can run of it. */
export function runCudaTests() {
  const name = 'cuda';
  const compiler = provideNvcc();
  if (!compiler.ok) {
    const files = nativeSources('cuda').length;
    say(`test: ${name}: ${compiler.reason}`);
    say(`test: ${name}: nothing was compiled; skipped, and counted as such, ${files} test files`);
    // In CI on Linux every .cu must have been compiled.
    return result(0, 0, files, !(process.env.CI && process.platform === 'linux'));
  }
  const build = path.join(root, 'build', 'tests');
  const targets = ['backend_cuda', 'lorax_cuda_tests'];
  const early = buildSuite({ name, suite: 'cuda', build, targets, ...cudaSettings('ON') });
  return early ?? runGoogleTests(build, 'lorax_cuda_tests');
}

/** `node`: the Node binary's folder to run with, in front of PATH; this process's by default. */
export function runVitest({ node = path.dirname(process.execPath), args = [] } = {}) {
  const report = path.join(root, '.cache', `vitest-${process.pid}.json`);
  fs.mkdirSync(path.dirname(report), { recursive: true });
  const ok = shown(
    path.join(node, path.basename(process.execPath)),
    [
      path.join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...args,
    ],
    { PATH: `${node}${path.delimiter}${process.env.PATH}` },
  );
  const json = readReport(report);
  fs.rmSync(report, { force: true });
  if (!json) return result(0, 0, 0, false);
  const skipped = json.numPendingTests + (json.numTodoTests ?? 0);
  const { numPassedTests: passed, numFailedTests: failed } = json;
  return result(passed, failed, skipped, ok && json.success && passed + failed > 0);
}

/** Prints the counts as the last line and sets the exit code. */
export function report(results) {
  const sum = (key) => results.reduce((total, each) => total + each[key], 0);
  const failed = sum('failed');
  if (results.some((each) => !each.ok) && failed === 0) {
    say('test: a runner failed, or ran no tests (see above)');
  }
  process.exitCode = failed > 0 || results.some((each) => !each.ok) ? 1 : 0;
  say(`${sum('passed')} passed, ${failed} failed, ${sum('skipped')} skipped`);
}

if (process.argv[1] && pathToFileURL(path.resolve(process.argv[1])).href === import.meta.url) {
  const own = process.argv.slice(2);
  const split = own.indexOf('--');
  const args = split < 0 ? [] : own.splice(split).slice(1);
  const only = own.includes('--only') ? own[own.indexOf('--only') + 1] : undefined;
  if (only !== undefined && !['native', 'cuda', 'vitest', 'clients'].includes(only)) {
    throw new Error(`--only takes native, cuda, vitest or clients, not ${only}`);
  }
  const results = [];
  const wants = (suite) => only === undefined || only === suite;
  if (wants('native')) results.push(runNativeTests({ sanitize: own.includes('--sanitize') }));
  if (wants('cuda')) results.push(runCudaTests());
  if (wants('vitest')) results.push(runVitest({ args }));
  if (wants('clients')) results.push(await runClientTests());
  report(results);
}
