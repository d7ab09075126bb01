// Runs every suite and counts from the runners' own reports: GoogleTest (built here; skipped by
// name where the machine lacks it), then vitest. The last line is exactly
// `N passed, N failed, N skipped`. A runner that fails, reports nothing or ran no test fails the
// whole. `--only native|vitest` runs one of them, `--sanitize` builds the native tests with ASan
// and UBSan; arguments after `--` go to vitest. Called by `npm test` and .ci/run.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

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

function nativeSources() {
  const folder = path.join(root, 'test', 'native');
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('_test.cc'));
}

/** True when configuring `build` failed for want of GoogleTest. */
function lacksGoogleTest(build) {
  const cache = path.join(build, 'CMakeCache.txt');
  return fs.existsSync(cache) && fs.readFileSync(cache, 'utf8').includes('GTest_DIR-NOTFOUND');
}

export function runNativeTests({ sanitize = false } = {}) {
  const name = sanitize ? 'native (ASan, UBSan)' : 'native';
  if (nativeSources().length === 0) {
    say(`test: ${name}: no test/native/**/*_test.cc`);
    return result(0, 0, 0, false);
  }
  const build = path.join(root, 'build', sanitize ? 'sanitize' : 'tests');
  const configure = [
    '-S',
    root,
    '-B',
    build,
    '-DLORAX_BUILD_TESTS=ON',
    '-DLORAX_WERROR=ON',
    `-DLORAX_SANITIZE=${sanitize ? 'ON' : 'OFF'}`,
    '-DCMAKE_BUILD_TYPE=RelWithDebInfo',
  ];
  if (!fs.existsSync(path.join(build, 'CMakeCache.txt')) && runs('ninja')) {
    configure.push('-G', 'Ninja');
  }
  say(`test: ${name}: building ...`);
  const jobs = String(os.availableParallelism());
  const compile = ['--build', build, '--target', 'lorax_tests', '--parallel', jobs];
  const configured = spawnSync('cmake', configure, { cwd: root, encoding: 'utf8' });
  if (configured.status !== 0 && lacksGoogleTest(build)) {
    say(`test: ${name}: GoogleTest is not installed (Debian: apt install libgtest-dev):`);
    say(`test: ${name}: skipped, and counted as such, ${nativeSources().length} test files`);
    return result(0, 0, nativeSources().length);
  }
  if (configured.status !== 0) process.stdout.write(`${configured.stdout}${configured.stderr}`);
  if (configured.status !== 0 || !quiet('cmake', compile)) {
    say(`test: ${name}: the build failed`);
    return result(0, 0, 0, false);
  }
  const report = path.join(build, 'report.json');
  fs.rmSync(report, { force: true });
  const executable = path.join(
    build,
    process.platform === 'win32' ? 'lorax_tests.exe' : 'lorax_tests',
  );
  const ok = shown(executable, ['--gtest_brief=1', `--gtest_output=json:${report}`], {
    UBSAN_OPTIONS: 'print_stacktrace=1',
    ASAN_OPTIONS: 'detect_leaks=1',
  });
  const suites = readReport(report)?.testsuites ?? [];
  const tests = suites.flatMap((suite) => suite.testsuite);
  const failed = tests.filter((test) => test.failures?.length > 0).length;
  // DISABLED_ tests are NOTRUN, GTEST_SKIP() ones SKIPPED.
  const skipped = tests.filter((test) => test.status === 'NOTRUN' || test.result === 'SKIPPED');
  const passed = tests.length - failed - skipped.length;
  return result(passed, failed, skipped.length, ok && passed + failed > 0);
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
  if (only !== undefined && only !== 'native' && only !== 'vitest') {
    throw new Error(`--only takes native or vitest, not ${only}`);
  }
  const results = [];
  if (only !== 'vitest') results.push(runNativeTests({ sanitize: own.includes('--sanitize') }));
  if (only !== 'native') results.push(runVitest({ args }));
  report(results);
}
