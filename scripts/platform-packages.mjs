// The npm packages that hold binaries: `@lorax-js/<platform>` has lorax.node, and where there is a CUDA
// backend `@lorax-js/<platform>-cuda` has lorax_cuda.so, which only those install who ask for it. What
// they are called and whom npm gives them to. src/platform-packages.ts looks them up at run time. Node
// built-ins only. Called by install.mjs and pack-prebuilt.mjs.
import fs from 'node:fs';

export const SCOPE = '@lorax-js';

const linux = (cpu, libc) => ({ os: ['linux'], cpu: [cpu], libc: [libc] });

/** What npm compares with the machine it installs on. */
export const PLATFORMS = {
  'linux-x64': linux('x64', 'glibc'),
  'linux-arm64': linux('arm64', 'glibc'),
  'linux-x64-musl': linux('x64', 'musl'),
  'linux-arm64-musl': linux('arm64', 'musl'),
  'darwin-x64': { os: ['darwin'], cpu: ['x64'] },
  'darwin-arm64': { os: ['darwin'], cpu: ['arm64'] },
  'win32-x64': { os: ['win32'], cpu: ['x64'] },
};

/** This machine's; it may be none of PLATFORMS. The same as in src/platform-packages.ts. */
export function currentPlatform() {
  const name = `${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return name;
  // The program that loads Node is named in the first part of its file.
  const node = fs.openSync(process.execPath, 'r');
  const head = Buffer.alloc(4096);
  fs.readSync(node, head);
  fs.closeSync(node);
  return head.includes('/ld-musl-') ? `${name}-musl` : name;
}
