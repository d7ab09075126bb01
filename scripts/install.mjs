// npm's install script: use a prebuilt addon that loads here, else build from source. A machine
// that cannot do either still installs: what is missing is said here, kept in build/not-built.txt,
// and the first call fails with ADDON_NOT_BUILT, which names `npx lorax-js build`.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildNative } from './build-native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const prebuilt = path.join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'lorax.node');
const notBuilt = path.join(root, 'build', 'not-built.txt');

/** Tried in a process of its own: a binary for another libc can do worse than throw. */
function loads(file) {
  if (!fs.existsSync(file)) return false;
  const probe = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', file], {
    stdio: 'ignore',
  });
  return probe.status === 0;
}

function install() {
  // A checkout (tests are not published) is made ready by scripts/bootstrap.mjs instead.
  if (fs.existsSync(path.join(root, 'test', 'global-setup.ts'))) return;
  if (loads(prebuilt)) return;
  const built = buildNative();
  if (built.ok) {
    fs.rmSync(notBuilt, { force: true });
    return;
  }
  const tail = built.output.trimEnd().split('\n').slice(-20).join('\n');
  const message =
    `lorax-js: the native addon is not built: ${built.reason}.\n` +
    'Put that right, then run: npx lorax-js build\n';
  fs.mkdirSync(path.dirname(notBuilt), { recursive: true });
  fs.writeFileSync(notBuilt, `${message}${tail ? `\n${tail}\n` : ''}`);
  process.stderr.write(`${tail ? `${tail}\n` : ''}${message}`);
}

install();
