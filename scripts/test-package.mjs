// The package as users get it (test/install): packed, and installed with the packages of this machine's
// platform into empty projects (ESM, CommonJS, TypeScript, a bundled Next app), and without any into one
// that builds from source. Also prints how large it is and how long it takes to import. The last line is
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
  const sourceOut = path.join(work, 'lorax-js-source.tgz');
  const packed = await packPrebuilt({
    ...{ out: path.join(work, 'packed'), sourceOut, cuda: builtCudaPlugin() },
  });
  process.env.LORAX_TEST_INSTALL = work;
  const tests = runVitest({ args: ['test/install/', ...own] });
  const figures = path.join(work, 'figures.json');
  if (fs.existsSync(figures)) printFigures(JSON.parse(fs.readFileSync(figures, 'utf8')), packed);
  report([tests]);
} finally {
  fs.rmSync(work, { recursive: true, force: true });
}

function printFigures(figures, packed) {
  const sizes = packed.map(({ name, tarball }) => [
    name,
    `${(fs.statSync(tarball).size / 1e6).toFixed(1)} MB`,
  ]);
  for (const [name, value] of [...sizes, ...Object.entries(figures)]) {
    console.log(`${name.padEnd(28)}${value}`);
  }
}
