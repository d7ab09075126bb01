// Packs what is published, into one folder: the package of this machine's platform with its addon, one more
// with the CUDA backend where there is one, and lorax-js itself, whose optionalDependencies are the
// platforms that lie in the folder at its version. So a release is this on one machine after the other
// with the same folder, then `npm publish` of every tarball in it, lorax-js last. Debug information stays
// here. The checkout is left as it is.
//     node scripts/pack-prebuilt.mjs [--release] [--out packed] [--cuda build/Release/lorax_cuda.so]
// `--release` builds as on a user's machine: a checkout's build has a CUDA backend for one kind of GPU.
// Also used by test-package.mjs and test-browsers.mjs, by examples/nextjs-chat and by the images in docker/.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { bootstrap, buildJavaScript, installDependencies } from './bootstrap.mjs';
import { addonPath, buildNative, cudaPluginPath } from './build-native.mjs';
import { currentPlatform, PLATFORMS, SCOPE } from './platform-packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What the command prints; on failure an error with its output. */
function run(command, args, cwd = root) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')} failed: ${error?.message ?? stdout + stderr}`);
}

const readJson = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
const writeJson = (file, value) => fs.writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);

/** `npm pack` of `folder` as `out`; install scripts would build what is built. */
function npmPack(folder, out) {
  const into = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-npm-'));
  try {
    const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', into];
    const [{ filename }] = JSON.parse(run('npm', args, folder));
    fs.copyFileSync(path.join(into, filename), out);
  } finally {
    fs.rmSync(into, { recursive: true, force: true });
  }
}

/** Without what only debuggers read. */
function copyStripped(from, to) {
  fs.copyFileSync(from, to);
  if (process.platform !== 'win32') {
    run('strip', [process.platform === 'darwin' ? '-x' : '--strip-unneeded', to]);
  }
}

/** The newest glibc that the file asks for: older systems build from source. undefined: it needs none. */
function neededGlibc(file) {
  const versions = fs.readFileSync(file, 'latin1').match(/GLIBC_2\.\d+/g) ?? [];
  return versions
    .sort((a, b) => Number(a.slice(8)) - Number(b.slice(8)))
    .at(-1)
    ?.slice(6);
}

/** Packs `file` alone as `<scope>/<name>`. */
function packBinary({ work, out, name, platform, file, description, more = {} }) {
  const { version, license, engines } = readJson(path.join(root, 'package.json'));
  const folder = path.join(work, name);
  const binary = path.basename(file);
  fs.mkdirSync(folder);
  copyStripped(file, path.join(folder, binary));
  fs.copyFileSync(path.join(root, 'LICENSE'), path.join(folder, 'LICENSE'));
  fs.writeFileSync(path.join(folder, 'README.md'), `# ${SCOPE}/${name}\n\n${description}\n`);
  writeJson(path.join(folder, 'package.json'), {
    ...{ name: `${SCOPE}/${name}`, version, description, license, engines },
    ...PLATFORMS[platform],
    ...{ main: binary, files: [binary], preferUnplugged: true },
    publishConfig: { access: 'public' },
    ...more,
  });
  const tarball = path.join(out, `lorax-js-${name}.tgz`);
  npmPack(folder, tarball);
  return { name: `${SCOPE}/${name}`, tarball, glibc: neededGlibc(path.join(folder, binary)) };
}

/** Of the platforms whose packages lie in `out` at `version`, as optionalDependencies. */
function packedPlatforms(out, version) {
  const found = {};
  for (const platform of Object.keys(PLATFORMS)) {
    const tarball = path.join(out, `lorax-js-${platform}.tgz`);
    if (!fs.existsSync(tarball)) continue;
    const manifest = JSON.parse(run('tar', ['-xzOf', tarball, 'package/package.json']));
    if (manifest.version !== version) {
      throw new Error(`${tarball} is ${manifest.version}, lorax-js is ${version}: pack it again`);
    }
    found[manifest.name] = version;
  }
  return found;
}

/** On a machine that shows no GPU, the CUDA backend is for all of them. */
async function buildRelease() {
  await installDependencies();
  const built = buildNative();
  if (!built.ok) throw new Error(`${built.reason}\n${built.output}`);
  process.stdout.write(`pack-prebuilt: CUDA backend ${built.cuda}\n${built.output ?? ''}`);
  await buildJavaScript();
}

/**
 * @param {{ out: string, release?: boolean, cuda?: string, sourceOut?: string }} options out: the
 *   folder; cuda: the CUDA backend to pack, by default the one beside the addon, where it was built;
 *   sourceOut: a file for lorax-js without optionalDependencies, as a platform that has none sees it
 * @returns {Promise<{ name: string, tarball: string, glibc?: string }[]>} what was packed, lorax-js last
 */
export async function packPrebuilt({ out, release = false, cuda = cudaPluginPath, sourceOut }) {
  await (release ? buildRelease() : bootstrap());
  const platform = currentPlatform();
  if (!(platform in PLATFORMS)) {
    throw new Error(`there is no package for ${platform} (see scripts/platform-packages.mjs)`);
  }
  fs.mkdirSync(out, { recursive: true });
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-pack-'));
  try {
    const { version } = readJson(path.join(root, 'package.json'));
    const description = `The native engine of lorax-js for ${platform}, which lorax-js installs.`;
    const packed = [
      packBinary({ work, out, name: platform, platform, file: addonPath, description }),
    ];
    if (fs.existsSync(cuda)) {
      const description = `The CUDA backend of lorax-js for ${platform}: install it beside lorax-js.`;
      // npm refuses another version beside it: the two belong together.
      const more = { peerDependencies: { 'lorax-js': version } };
      const name = `${platform}-cuda`;
      packed.push(packBinary({ work, out, name, platform, file: cuda, description, more }));
    }

    const source = path.join(work, 'source.tgz');
    npmPack(root, source);
    if (sourceOut !== undefined) fs.copyFileSync(source, sourceOut);
    run('tar', ['-xzf', source, '-C', work]);
    const folder = path.join(work, 'package');
    const manifest = path.join(folder, 'package.json');
    const optionalDependencies = packedPlatforms(out, version);
    writeJson(manifest, { ...readJson(manifest), optionalDependencies });
    const tarball = path.join(out, 'lorax-js.tgz');
    npmPack(folder, tarball);
    return [...packed, { name: 'lorax-js', tarball }];
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'packed' },
      release: { type: 'boolean', default: false },
      cuda: { type: 'string' },
    },
  });
  for (const { name, tarball, glibc } of await packPrebuilt(values)) {
    const megabytes = (fs.statSync(tarball).size / 1e6).toFixed(1);
    const needs = glibc === undefined ? '' : `, needs glibc ${glibc}`;
    process.stdout.write(`pack-prebuilt: ${name}: ${tarball}, ${megabytes} MB${needs}\n`);
  }
}
