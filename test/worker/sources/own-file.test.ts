// What is written beside a file before it becomes that file.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ownFileOf, replaceFile } from '../../../worker/sources/own-file.js';
import { temporaryDirectory } from './fixture.js';

const deadPid = () => spawnSync(process.execPath, ['-e', '']).pid;

describe('replaceFile', () => {
  it('by many at once leaves what one of them has written, and nothing else', async () => {
    const file = path.join(temporaryDirectory(), 'x');
    const texts = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(1_000));
    await Promise.all(texts.map((text) => replaceFile(file, (own) => writeFile(own, text))));
    expect(texts).toContain(readFileSync(file, 'utf8'));
    expect(readdirSync(path.dirname(file))).toEqual(['x']);
  });

  it('that fails leaves what was there', async () => {
    const file = path.join(temporaryDirectory(), 'x');
    writeFileSync(file, 'before');
    const failing = replaceFile(file, async (own) => {
      await writeFile(own, 'half');
      throw new Error('full');
    });
    await expect(failing).rejects.toThrow('full');
    expect(readFileSync(file, 'utf8')).toBe('before');
    expect(readdirSync(path.dirname(file))).toEqual(['x']);
  });

  it('removes what the dead have left beside it, and no one else has', async () => {
    const directory = temporaryDirectory();
    const file = path.join(directory, 'x');
    writeFileSync(ownFileOf(file, deadPid()), '');
    symlinkSync('nowhere', ownFileOf(file, deadPid()));
    const old = ownFileOf(file, deadPid(), 'elsewhere');
    writeFileSync(old, '');
    const then = new Date(Date.now() - 11_000);
    utimesSync(old, then, then);
    const kept = [
      ownFileOf(file),
      ownFileOf(file, deadPid(), 'elsewhere'),
      ownFileOf(path.join(directory, 'y'), deadPid()),
      `${file}.json`,
    ];
    for (const each of kept) writeFileSync(each, '');
    await replaceFile(file, (own) => writeFile(own, 'x'));
    const names = [file, ...kept].map((each) => path.basename(each)).sort();
    expect(readdirSync(directory).sort()).toEqual(names);
  });
});
