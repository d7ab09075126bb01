// The browser tests of examples/nextjs-chat (test/next): a copy of it in a folder of its own, with
// lorax-js installed from a packed tarball as users install it, in development and as standalone
// output, in a real Chromium. Where there is none, CI on Debian installs it; elsewhere what needs one
// counts as skipped. `CHROMIUM` names another. The last line is `N passed, N failed, N skipped`.
//     node scripts/test-next.mjs [-- vitest arguments]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { packPrebuilt } from './pack-prebuilt.mjs';
import { builtCudaPlugin, report, runVitest } from './test.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const say = (line) => process.stdout.write(`test-next: ${line}\n`);
const CHROMIUM = '/usr/bin/chromium';

function run(command, args, cwd = root) {
  const child = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (child.status === 0) return;
  const output = child.error?.message ?? `${child.stdout}${child.stderr}`;
  throw new Error(`\`${command} ${args.join(' ')}\` failed: ${output}`);
}

/** A Chromium to test with, or undefined with the reason said. */
function findChromium() {
  const present = [process.env.CHROMIUM, CHROMIUM].find((file) => file && fs.existsSync(file));
  if (present) return present;
  if (!process.env.CI || process.getuid?.() !== 0) {
    say(`skipped what needs a browser: there is no ${CHROMIUM} (Debian: apt install chromium)`);
    return undefined;
  }
  try {
    say('installing chromium ...');
    run('apt-get', ['update']);
    run('apt-get', ['install', '--yes', '--no-install-recommends', 'chromium']);
    return CHROMIUM;
  } catch (error) {
    say(`skipped what needs a browser: ${error.message}`);
    return undefined;
  }
}

/** A copy of the example, its packages installed; beside it there is room for the tests. */
async function install(work) {
  const app = path.join(work, 'app');
  const example = path.join(root, 'examples/nextjs-chat');
  const isSource = (file) => !['node_modules', '.next'].includes(path.basename(file));
  fs.cpSync(example, app, { recursive: true, filter: isSource });
  const packed = await packPrebuilt({ out: app, cuda: builtCudaPlugin() });
  say('installing Next.js ...');
  const tarballs = packed.map(({ tarball }) => tarball);
  run('npm', ['install', '--no-save', '--no-audit', '--no-fund', ...tarballs], app);
  return app;
}

const split = process.argv.indexOf('--');
const own = split < 0 ? [] : process.argv.slice(split + 1);
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-next-'));
try {
  process.env.LORAX_TEST_NEXT = await install(work);
  process.env.LORAX_TEST_CHROMIUM = findChromium() ?? '';
  report([runVitest({ args: ['test/next/', ...own] })]);
} finally {
  fs.rmSync(work, { recursive: true, force: true });
}
