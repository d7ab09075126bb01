// Makes a fresh checkout ready: dependencies, the native addon, dist/. Each step is skipped when
// the hash of its inputs equals the stamp its last success left, so it costs milliseconds when
// nothing changed. Node built-ins only: it runs before node_modules exists. Called by `npm test`,
// `npm run demo`, `npm run build` and vitest's global setup.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { buildNative, findNvcc } from './build-native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** sha256 over names and contents of the files under `inputs`, and `salt`; 'missing' counts too. */
function hashOf(inputs, salt = '') {
  const hash = createHash('sha256').update(salt);
  const visit = (relative) => {
    const absolute = path.join(root, relative);
    const stat = fs.statSync(absolute, { throwIfNoEntry: false });
    if (stat?.isDirectory()) {
      for (const name of fs.readdirSync(absolute).sort()) visit(path.join(relative, name));
    } else {
      hash.update(`\0${relative}\0`);
      hash.update(stat ? fs.readFileSync(absolute) : 'missing');
    }
  };
  for (const input of inputs) visit(input);
  return hash.digest('hex');
}

/** Runs `command`; on failure its whole output is shown and the error names the step. */
function runStep(step, command, args) {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    shell: process.platform === 'win32',
  });
  if (result.error) throw new Error(`${step}: cannot run ${command}: ${result.error.message}`);
  if (result.status !== 0) {
    process.stderr.write(result.stdout + result.stderr);
    throw new Error(`${step} failed: \`${command} ${args.join(' ')}\` (exit ${result.status})`);
  }
}

/** Two test runs in one checkout must not build into one directory: one bootstrap at a time. */
async function withLock(work) {
  const lock = path.join(root, '.cache', 'bootstrap.lock');
  fs.mkdirSync(path.dirname(lock), { recursive: true });
  for (;;) {
    try {
      fs.writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      if (!holderIsAlive(lock)) fs.rmSync(lock, { force: true });
      else await sleep(200);
    }
  }
  try {
    return await work();
  } finally {
    fs.rmSync(lock, { force: true });
  }
}

function holderIsAlive(lock) {
  try {
    const pid = Number(fs.readFileSync(lock, 'utf8'));
    // An empty file is a lock whose owner is about to write its pid.
    if (!pid) return true;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Runs `build` unless `stampFile` already holds the hash of its inputs; says one line if it ran. */
async function step(name, stampFile, inputs, salt, build) {
  const stamp = path.join(root, stampFile);
  const hash = hashOf(inputs, salt);
  const isCurrent = () => fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === hash;
  if (isCurrent()) return;
  await withLock(async () => {
    if (isCurrent()) return;
    const start = Date.now();
    process.stdout.write(`bootstrap: ${name} ...\n`);
    const note = await build();
    fs.mkdirSync(path.dirname(stamp), { recursive: true });
    fs.writeFileSync(stamp, hash);
    const seconds = ((Date.now() - start) / 1000).toFixed(1);
    process.stdout.write(`bootstrap: ${name}: ${note ?? 'done'} (${seconds} s)\n`);
  });
}

/** `npm ci`. Install scripts are off: ours is the next step, and no other package here needs one. */
export function installDependencies() {
  return step(
    'dependencies (npm ci)',
    'node_modules/.lorax-stamp',
    ['package-lock.json'],
    `${process.platform}-${process.arch}`,
    () => runStep('npm ci', 'npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']),
  );
}

/**
 * The addon, build/Release/lorax.node, and what its tests open; where there is nvcc, lorax_cuda.so.
 * Warnings are errors since this is a checkout.
 */
export function buildAddon() {
  return step(
    'native addon',
    'build/.lorax-stamp',
    [
      ...['native', 'cmake', 'CMakeLists.txt', 'scripts/build-native.mjs'],
      ...['test/native/plugin', 'test/native/reference'],
    ],
    `${process.platform}-${process.arch} ${findNvcc()}`,
    () => {
      const built = buildNative({ strict: true });
      if (!built.ok) {
        process.stderr.write(built.output);
        throw new Error(`native addon: ${built.reason}`);
      }
      return `done; CUDA backend ${built.cuda}`;
    },
  );
}

/** dist/, from src/ and worker/. */
export function buildJavaScript() {
  return step(
    'dist (tsdown)',
    'dist/.stamp',
    [
      ...['src', 'worker', 'tsdown.config.ts', 'tsconfig.json', 'package.json'],
      ...['scripts/bundled-licenses.mjs', 'scripts/ui-assets.mjs'],
    ],
    '',
    () => {
      fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true });
      const tsdown = path.join(root, 'node_modules', 'tsdown', 'dist', 'run.mjs');
      runStep('tsdown', process.execPath, [tsdown, '--logLevel', 'warn']);
    },
  );
}

export async function bootstrap() {
  await installDependencies();
  await buildAddon();
  await buildJavaScript();
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    await bootstrap();
  } catch (error) {
    process.stderr.write(`bootstrap: ${error.message}\n`);
    process.exitCode = 1;
  }
}
