// Packs the package as it is published: sources, dist/ and prebuilds/, where this machine's addon and
// CUDA backend go beside those of other machines that a release has collected in prebuilds/. Debug
// information stays here. The checkout is left as it is.
//     node scripts/pack-prebuilt.mjs [--out lorax-js.tgz] [--cuda build/Release/lorax_cuda.so]
// Also used by test-package.mjs and test-browsers.mjs, and by examples/nextjs-chat.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { bootstrap } from './bootstrap.mjs';
import { addonPath, cudaPluginPath } from './build-native.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What the command prints; on failure an error with its output. */
function run(command, args, cwd = root) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')} failed: ${error?.message ?? stdout + stderr}`);
}

/** `npm pack` of `folder` into `into`; install scripts would build what is built. */
function npmPack(folder, into) {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', into];
  const [{ filename }] = JSON.parse(run('npm', args, folder));
  return path.join(into, filename);
}

/** Without what only debuggers read. */
function copyStripped(from, to) {
  fs.copyFileSync(from, to);
  if (process.platform !== 'win32') {
    run('strip', [process.platform === 'darwin' ? '-x' : '--strip-unneeded', to]);
  }
}

/**
 * @param {{ out: string, sourceOut?: string, cuda?: string }} options out: the tarball;
 *   sourceOut: a second one, without any binary, as for a platform that has none; cuda: the CUDA
 *   backend to pack, by default the one beside the addon, where it was built
 */
export async function packPrebuilt({ out, sourceOut, cuda = cudaPluginPath }) {
  await bootstrap();
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-pack-'));
  try {
    run('tar', ['-xzf', npmPack(root, work), '-C', work]);
    const packed = path.join(work, 'package');
    const prebuilds = path.join(packed, 'prebuilds');
    const own = path.join(prebuilds, `${process.platform}-${process.arch}`);
    fs.mkdirSync(own, { recursive: true });
    copyStripped(addonPath, path.join(own, 'lorax.node'));
    if (fs.existsSync(cuda)) copyStripped(cuda, path.join(own, 'lorax_cuda.so'));
    fs.copyFileSync(npmPack(packed, work), out);
    if (sourceOut === undefined) return;
    fs.rmSync(prebuilds, { recursive: true });
    fs.copyFileSync(npmPack(packed, work), sourceOut);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { out: { type: 'string', default: 'lorax-js.tgz' }, cuda: { type: 'string' } },
  });
  await packPrebuilt(values);
  const megabytes = fs.statSync(values.out).size / 1e6;
  process.stdout.write(`pack-prebuilt: ${values.out}  ${megabytes.toFixed(1)} MB\n`);
}
