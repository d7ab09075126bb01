/**
 * Files of one process beside one that all share: what it is about to become is written there first.
 *
 * Its name says whose it is, so that what a killed process has left is known for it whatever is, or isn't
 * yet, inside; who comes next removes it. Used by file-lock.ts, blob-store.ts and verified-files.ts.
 */
import { createHash, randomUUID } from 'node:crypto';
import { lstat, readdir, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';

/** Of a process of another host nothing else tells that it has died. */
const STALE_MS = 10_000;

const OWN_FILE = /\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$/;

/** A name that nobody else has, beside `file`. */
export function ownFileOf(file: string, pid = process.pid, host = hostname()): string {
  return `${file}.${hashOf(host)}-${pid}-${randomUUID().slice(0, 8)}.tmp`;
}

/** Makes `file` anew: nobody finds it missing, nor less than all of what `write` has written. */
export async function replaceFile(
  file: string,
  write: (own: string) => Promise<void>,
): Promise<void> {
  const own = ownFileOf(file);
  try {
    await write(own);
    await rename(own, file);
  } catch (thrown) {
    await rm(own, { force: true }).catch(() => undefined);
    throw thrown;
  }
  await removeDead(file);
}

/** Removes what those who are no more have left beside `file`. */
export async function removeDead(file: string): Promise<void> {
  const directory = path.dirname(file);
  const names = await readdir(directory).catch(() => []);
  for (const name of names.filter((each) => each.startsWith(`${path.basename(file)}.`))) {
    const own = path.join(directory, name);
    const isLeft = OWN_FILE.test(name) && (isOfDead(name) || (await isUntouched(own)));
    if (isLeft) await rm(own, { force: true }).catch(() => undefined);
  }
}

/** By the name of an own file; false where its host is another, or it is no such name. */
export function isOfDead(own: string): boolean {
  const [, host, pid] = OWN_FILE.exec(own) ?? [];
  return host === hashOf(hostname()) && !isRunning(Number(pid));
}

/** False as well where it is gone. */
export async function isUntouched(file: string): Promise<boolean> {
  const found = await lstat(file).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs > STALE_MS;
}

/** Hosts may be called anything; files may not. */
function hashOf(host: string): string {
  return createHash('sha256').update(host).digest('hex').slice(0, 8);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
