import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadAddon } from '../../worker/load-engine.js';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(path.join(tmpdir(), 'lorax-addon-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

describe('loadAddon', () => {
  it('takes the first path that exists', async () => {
    const there = path.join(scratch, 'good.cjs');
    await writeFile(there, 'exports.createEngine = () => "made";');
    const addon = loadAddon([path.join(scratch, 'absent.node'), there]);
    expect(addon.createEngine).toBeTypeOf('function');
  });

  it('names the command and the paths when none exists', () => {
    const paths = ['/nowhere/build/lorax.node', '/nowhere/@lorax-js/lorax.node'];
    expect(() => loadAddon(paths)).toThrow(
      expect.objectContaining({
        code: 'ADDON_NOT_BUILT',
        data: { paths },
        message: expect.stringMatching(
          /npx lorax-js build.*\/nowhere\/build.*\/nowhere\/@lorax-js/,
        ),
      }),
    );
  });

  it.each([
    ['cannot be opened', 'not a shared object', 'broken.node'],
    ["is not this version's", 'exports.other = 1;', 'other.cjs'],
  ])('says when a file %s', async (words, content, name) => {
    const file = path.join(scratch, name);
    await writeFile(file, content);
    expect(() => loadAddon([file])).toThrow(
      expect.objectContaining({
        code: 'ADDON_NOT_BUILT',
        message: expect.stringContaining(words) as string,
      }),
    );
  });
});
