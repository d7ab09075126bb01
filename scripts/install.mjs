// npm's install script: build from source, unless the platform's package was installed and loads here. A
// machine that cannot do either still installs: what is missing is said here, kept in build/not-built.txt,
// and the first call fails with ADDON_NOT_BUILT, which names `npx lorax-js build`.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildNative } from './build-native.mjs';
import { currentPlatform, SCOPE } from './platform-packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const notBuilt = path.join(root, 'build', 'not-built.txt');

/**
 * Whether the platform's package has an addon that loads. Tried in a process of its own: a binary for
 * another libc can do worse than throw.
 */
function hasPrebuilt() {
  let file;
  try {
    file = createRequire(import.meta.url).resolve(`${SCOPE}/${currentPlatform()}/lorax.node`);
  } catch {
    return false;
  }
  const probe = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', file], {
    encoding: 'utf8',
  });
  if (probe.status === 0) return true;
  const reason = /Error: (.*)/.exec(probe.stderr)?.[1] ?? `ended with ${probe.signal}`;
  process.stderr.write(`lorax-js: ${file} does not load here (${reason}): building from source\n`);
  return false;
}

function install() {
  // A checkout (tests are not published) is made ready by scripts/bootstrap.mjs instead.
  if (fs.existsSync(path.join(root, 'test', 'global-setup.ts'))) return;
  if (hasPrebuilt()) return;
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
