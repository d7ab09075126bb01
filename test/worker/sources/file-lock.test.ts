// One holder at a time, and what becomes of the locks of the dead.
import { spawnSync } from 'node:child_process';
import { linkSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { clearDeadLocks, lockFile } from '../../../worker/sources/file-lock.js';
import { ownFileOf } from '../../../worker/sources/own-file.js';
import { temporaryDirectory } from './fixture.js';

const never = new AbortController().signal;

/** A lock as its holder would have left it. */
function leave(directory: string, pid: number, host?: string, ageMs = 0): string {
  const lock = path.join(directory, 'x.lock');
  const own = ownFileOf(lock, pid, host);
  writeFileSync(own, path.basename(own));
  linkSync(own, lock);
  const then = new Date(Date.now() - ageMs);
  utimesSync(lock, then, then);
  return lock;
}

const deadPid = () => spawnSync(process.execPath, ['-e', '']).pid;

describe('lockFile', () => {
  it('lets one in at a time, and leaves nothing', async () => {
    const directory = temporaryDirectory();
    const lock = path.join(directory, 'deep', 'x.lock');
    let [inside, most, turns] = [0, 0, 0];
    const enter = async () => {
      const release = await lockFile(lock, never);
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 5));
      inside--;
      turns++;
      await release();
    };
    await Promise.all(Array.from({ length: 8 }, enter));
    expect([most, turns]).toEqual([1, 8]);
    expect(readdirSync(path.dirname(lock))).toEqual([]);
  });

  it('takes over from a process that has died, at once', async () => {
    const directory = temporaryDirectory();
    const lock = leave(directory, deadPid());
    const startedAt = performance.now();
    const release = await lockFile(lock, never);
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    await release();
    expect(readdirSync(directory)).toEqual([]);
  });

  it('clears what the dead have left, and nothing else', async () => {
    const directory = temporaryDirectory();
    const lock = leave(directory, deadPid());
    await clearDeadLocks(lock);
    expect(readdirSync(directory)).toEqual([]);
    // Killed before it had the lock or after it had given it back, while it wrote, or while it took one over.
    const own = ownFileOf(lock, deadPid());
    writeFileSync(own, path.basename(own));
    const unwritten = ownFileOf(lock, deadPid());
    writeFileSync(unwritten, '');
    const aside = ownFileOf(lock, deadPid());
    writeFileSync(aside, path.basename(own));
    const release = await lockFile(lock, never);
    const held = readdirSync(directory);
    await clearDeadLocks(lock);
    const dead = [own, unwritten, aside].map((each) => path.basename(each));
    expect(held).toEqual(expect.arrayContaining(dead));
    expect(readdirSync(directory)).toEqual(held.filter((name) => !dead.includes(name)));
    await release();
    expect(readdirSync(directory)).toEqual([]);
  });

  it('takes over from another machine only what was not touched for long', async () => {
    const directory = temporaryDirectory();
    const release = await lockFile(leave(directory, 1, 'elsewhere', 11_000), never);
    await release();
    expect(readdirSync(directory)).toEqual([]);
    const fresh = leave(directory, deadPid(), 'elsewhere');
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 200);
    await expect(lockFile(fresh, abort.signal)).rejects.toMatchObject({ reason: 'cancelled' });
    expect(readdirSync(directory).length).toBe(2);
  });

  it('of many who find a dead holder lets in one at a time', async () => {
    const directory = temporaryDirectory();
    const lock = leave(directory, deadPid());
    let [inside, most] = [0, 0];
    const enter = async () => {
      const release = await lockFile(lock, never);
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 2));
      inside--;
      await release();
    };
    await Promise.all(Array.from({ length: 10 }, enter));
    expect(most).toBe(1);
    expect(readdirSync(directory)).toEqual([]);
  });
});
