// What is packed for a platform is what is looked up on it.
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import * as packed from '../../scripts/platform-packages.mjs';
import { addonPaths, cudaPluginPaths, currentPlatform } from '../../src/platform-packages.js';

const { platform, arch } = process;
afterEach(() => {
  Object.defineProperty(process, 'platform', { value: platform });
  Object.defineProperty(process, 'arch', { value: arch });
});

/** As if the process ran there; of the libc, its own file says which. */
function pretend(os: string, cpu: string) {
  Object.defineProperty(process, 'platform', { value: os });
  Object.defineProperty(process, 'arch', { value: cpu });
}

test('this platform is called the same, and has a package', () => {
  expect(currentPlatform()).toBe(packed.currentPlatform());
  expect(Object.keys(packed.PLATFORMS)).toContain(currentPlatform());
});

const ofThisLibc = Object.entries(packed.PLATFORMS).filter(
  ([name, { os }]) =>
    os[0] !== 'linux' || name.endsWith('-musl') === packed.currentPlatform().endsWith('-musl'),
);
test.each(ofThisLibc)('%s: its package is looked for, after a build', (name, { os, cpu }) => {
  pretend(os[0] as string, cpu[0] as string);
  const [built, packaged, ...more] = addonPaths();
  expect(built).toContain(path.join('build', 'Release', 'lorax.node'));
  expect(packaged).toContain(path.join(packed.SCOPE, name, 'lorax.node'));
  expect(more).toEqual([]);
  const cuda = cudaPluginPaths().slice(1);
  expect(cuda.length).toBe(os[0] === 'linux' ? 1 : 0);
  for (const file of cuda) {
    expect(file).toContain(path.join(packed.SCOPE, `${name}-cuda`, 'lorax_cuda.so'));
  }
});

test('where there is no package, only a build is looked for', () => {
  pretend('sunos', 'sparc');
  expect(addonPaths().length).toBe(1);
});
