/**
 * One holder at a time, over all processes that use a cache: a file that says who holds it.
 *
 * Only work is saved by it: what makes the cache sound is that files appear in it by renaming
 * (blob-store.ts). Node has no flock(), so a lock whose process has died, or whose holder has not
 * touched it for ten seconds, is taken over (own-file.ts). Called by blob-store.ts.
 */
import { link, mkdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cancelled, diskFailure } from './fetch-failure.js';
import { isOfDead, isUntouched, ownFileOf, removeDead } from './own-file.js';

const TOUCH_MS = 2_000;
const POLL_MS = 50;

/** Resolves to the function that releases it; it never rejects. */
export async function lockFile(file: string, signal: AbortSignal): Promise<() => Promise<void>> {
  // A file of its own that holds its name and is linked into place: the lock says whose it is.
  const own = ownFileOf(file);
  // Who waits is alive, too.
  const touch = setInterval(() => {
    const now = new Date();
    utimes(own, now, now).catch(() => undefined);
  }, TOUCH_MS);
  touch.unref();
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(own, path.basename(own));
    while (!(await tryLink(own, file))) {
      if (signal.aborted) throw cancelled(signal);
      if (!(await takeOver(file))) await sleep(POLL_MS);
    }
  } catch (thrown) {
    clearInterval(touch);
    await rm(own, { force: true }).catch(() => undefined);
    throw signal.aborted ? cancelled(signal) : diskFailure(thrown);
  }
  return async () => {
    clearInterval(touch);
    // Somebody may have taken it for stale and over: then it is theirs to remove.
    if (await sameFile(own, file)) await rm(file, { force: true }).catch(() => undefined);
    await rm(own, { force: true }).catch(() => undefined);
    await clearDeadLocks(file);
  };
}

/** Removes what those who are no more have left of the lock. */
export async function clearDeadLocks(file: string): Promise<void> {
  await takeOver(file);
  await removeDead(file);
}

async function tryLink(own: string, file: string): Promise<boolean> {
  try {
    await link(own, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** True where a dead holder's lock has been removed. */
async function takeOver(file: string): Promise<boolean> {
  if (!(await isStale(file))) return false;
  // Renaming is for one alone; who comes second finds nothing, or a lock that is alive again.
  const aside = ownFileOf(file);
  try {
    await rename(file, aside);
  } catch {
    return false;
  }
  const alive = !(await isStale(aside));
  if (alive) await link(aside, file).catch(() => undefined);
  await rm(aside, { force: true });
  return !alive;
}

async function isStale(lock: string): Promise<boolean> {
  if (await isUntouched(lock)) return true;
  // Not there where it was released meanwhile.
  return isOfDead(await readFile(lock, 'utf8').catch(() => ''));
}

async function sameFile(a: string, b: string): Promise<boolean> {
  try {
    const [one, other] = await Promise.all([stat(a), stat(b)]);
    return one.ino === other.ino && one.dev === other.dev;
  } catch {
    return false;
  }
}
