// What is tested in a real Chromium: the server's dashboard (test/dashboard), and examples/nextjs-chat
// (test/next), a copy of it in a folder of its own, with lorax-js installed from a packed tarball as users
// install it, in development and as standalone output. Without a browser (find-chromium.mjs) what needs
// one counts as skipped. The last line is `N passed, N failed, N skipped`.
//     node scripts/test-browsers.mjs [--only dashboard|next] [-- vitest arguments]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { findChromium } from './find-chromium.mjs';
import { packPrebuilt } from './pack-prebuilt.mjs';
import { builtCudaPlugin, report, runVitest } from './test.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const say = (line) => process.stdout.write(`test-browsers: ${line}\n`);

function run(command, args, cwd = root) {
  const child = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (child.status === 0) return;
  const output = child.error?.message ?? `${child.stdout}${child.stderr}`;
  throw new Error(`\`${command} ${args.join(' ')}\` failed: ${output}`);
}

/** A copy of the example, its packages installed; beside it there is room for the tests. */
async function installExample(work) {
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

const given = process.argv.slice(2);
const split = given.indexOf('--');
const own = split < 0 ? [] : given.splice(split).slice(1);
const only = given.includes('--only') ? given[given.indexOf('--only') + 1] : undefined;
if (only !== undefined && !['dashboard', 'next'].includes(only)) {
  throw new Error(`--only takes dashboard or next, not ${only}`);
}
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-browsers-'));
try {
  process.env.LORAX_TEST_CHROMIUM = findChromium(say) ?? '';
  const results = [];
  if (only !== 'next') results.push(runVitest({ args: ['test/dashboard/', ...own] }));
  if (only !== 'dashboard') {
    process.env.LORAX_TEST_NEXT = await installExample(work);
    results.push(runVitest({ args: ['test/next/', ...own] }));
  }
  report(results);
} finally {
  fs.rmSync(work, { recursive: true, force: true });
}
