// The package as users get it (test/install): packed with this machine's binaries and installed into
// empty projects (ESM, CommonJS, TypeScript, a bundled Next app), and packed without any into one that
// builds from source. Also prints how large it is and how long it takes to import. The last line is
// `N passed, N failed, N skipped`.
//     node scripts/test-package.mjs [-- vitest arguments]
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { packPrebuilt } from './pack-prebuilt.mjs';
import { builtCudaPlugin, report, runVitest } from './test.mjs';

const split = process.argv.indexOf('--');
const own = split < 0 ? [] : process.argv.slice(split + 1);
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-package-'));
try {
  const tarball = path.join(work, 'lorax-js.tgz');
  const sourceOut = path.join(work, 'lorax-js-source.tgz');
  await packPrebuilt({ out: tarball, sourceOut, cuda: builtCudaPlugin() });
  process.env.LORAX_TEST_INSTALL = work;
  const tests = runVitest({ args: ['test/install/', ...own] });
  const figures = path.join(work, 'figures.json');
  if (fs.existsSync(figures)) printFigures(JSON.parse(fs.readFileSync(figures, 'utf8')), tarball);
  report([tests]);
} finally {
  fs.rmSync(work, { recursive: true, force: true });
}

function printFigures(figures, tarball) {
  const packed = `${(fs.statSync(tarball).size / 1e6).toFixed(1)} MB`;
  for (const [name, value] of Object.entries({ 'packed size': packed, ...figures })) {
    console.log(`${name.padEnd(28)}${value}`);
  }
}
