/**
 * Where the native files are: built here, or in the platform's package.
 *
 * `build/` comes first: it is there only where somebody asked for it, or where nothing else loaded. The
 * packages are what scripts/pack-prebuilt.mjs packs; npm installs those that fit the machine, beside this
 * package. Called by the engine client and by the command.
 */
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Where lorax.node may be, in order. */
export function addonPaths(): string[] {
  const built = fileURLToPath(new URL('../build/Release/lorax.node', import.meta.url));
  return [built, ...packaged(addons, 'lorax.node')];
}

/** Likewise of lorax_cuda.so, which only machines with CUDA have. */
export function cudaPluginPaths(): string[] {
  const built = fileURLToPath(new URL('../build/Release/lorax_cuda.so', import.meta.url));
  return [built, ...packaged(cudaPlugins, 'lorax_cuda.so')];
}

/** Where npm puts them; literal URLs, so that tracers of bundles find the files. */
const addons: Record<string, () => URL> = {
  'linux-x64': () => new URL('../../@lorax-js/linux-x64/lorax.node', import.meta.url),
  'linux-arm64': () => new URL('../../@lorax-js/linux-arm64/lorax.node', import.meta.url),
  'linux-x64-musl': () => new URL('../../@lorax-js/linux-x64-musl/lorax.node', import.meta.url),
  'linux-arm64-musl': () => new URL('../../@lorax-js/linux-arm64-musl/lorax.node', import.meta.url),
  'darwin-x64': () => new URL('../../@lorax-js/darwin-x64/lorax.node', import.meta.url),
  'darwin-arm64': () => new URL('../../@lorax-js/darwin-arm64/lorax.node', import.meta.url),
  'win32-x64': () => new URL('../../@lorax-js/win32-x64/lorax.node', import.meta.url),
};

const cudaPlugins: Record<string, () => URL> = {
  'linux-x64': () => new URL('../../@lorax-js/linux-x64-cuda/lorax_cuda.so', import.meta.url),
  'linux-arm64': () => new URL('../../@lorax-js/linux-arm64-cuda/lorax_cuda.so', import.meta.url),
};

function packaged(files: Record<string, () => URL>, name: string): string[] {
  const find = files[currentPlatform()];
  if (find === undefined) return [];
  const beside = fileURLToPath(find());
  if (existsSync(beside)) return [beside];
  // Nested, or under a package manager with a layout of its own.
  const [, specifier = ''] = /(@lorax-js\/[^/]+)\/[^/]+$/.exec(find().pathname) ?? [];
  try {
    return [createRequire(import.meta.url).resolve(`${specifier}/${name}`)];
  } catch {
    return [beside];
  }
}

/** As in the packages' names: linux-x64, linux-x64-musl, darwin-arm64, ... */
export function currentPlatform(): string {
  return `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/** The program that loads Node is named in the first part of its file. */
function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const node = openSync(process.execPath, 'r');
  try {
    const head = Buffer.alloc(4096);
    readSync(node, head);
    return head.includes('/ld-musl-');
  } finally {
    closeSync(node);
  }
}
