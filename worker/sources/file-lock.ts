/**
 * One holder at a time, over all processes that use a cache: a file that says who holds it.
 *
 * Only work is saved by it: what makes the cache sound is that files appear in it by renaming
 * (blob-store.ts). Node has no flock(), so a lock whose process has died, or whose holder has not
 * touched it for `STALE_MS`, is taken over. Called by blob-store.ts.
 */
import { randomUUID } from 'node:crypto';
import {
  link,
  mkdir,
  readFile,
  readdir,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cancelled, diskFailure } from './fetch-failure.js';

const STALE_MS = 10_000;
const TOUCH_MS = 2_000;
const POLL_MS = 50;

interface Holder {
  host: string;
  pid: number;
  /** The holder's own file, beside the lock. */
  file: string;
}

/** Resolves to the function that releases it; it never rejects. */
export async function lockFile(file: string, signal: AbortSignal): Promise<() => Promise<void>> {
  // A file of its own that is linked into place: whoever sees the lock can read its holder.
  const own = `${file}.${randomUUID().slice(0, 8)}`;
  const holder: Holder = { host: hostname(), pid: process.pid, file: path.basename(own) };
  // Who waits is alive, too.
  const touch = setInterval(() => {
    const now = new Date();
    utimes(own, now, now).catch(() => undefined);
  }, TOUCH_MS);
  touch.unref();
  try {
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(own, JSON.stringify(holder));
    while (!(await tryLink(own, file))) {
      if (signal.aborted) throw cancelled(signal);
      if (!(await takeOver(file, own))) await sleep(POLL_MS);
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
  if (await isStale(file)) await takeOver(file, `${file}.${randomUUID().slice(0, 8)}`);
  const directory = path.dirname(file);
  const names = await readdir(directory).catch(() => []);
  for (const name of names.filter((each) => each.startsWith(`${path.basename(file)}.`))) {
    const own = path.join(directory, name);
    if (await isStale(own)) await rm(own, { force: true }).catch(() => undefined);
  }
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
async function takeOver(file: string, own: string): Promise<boolean> {
  if (!(await isStale(file))) return false;
  // Renaming is for one alone; who comes second finds nothing, or a lock that is alive again.
  const aside = `${own}.stale`;
  try {
    await rename(file, aside);
  } catch {
    return false;
  }
  const alive = !(await isStale(aside));
  const left = alive ? undefined : await holderOf(aside).catch(() => undefined);
  if (alive) await link(aside, file).catch(() => undefined);
  if (left !== undefined) {
    await rm(path.join(path.dirname(file), path.basename(left.file)), { force: true });
  }
  await rm(aside, { force: true });
  return !alive;
}

async function holderOf(file: string): Promise<Holder> {
  return JSON.parse(await readFile(file, 'utf8')) as Holder;
}

async function isStale(file: string): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(file);
    if (Date.now() - mtimeMs > STALE_MS) return true;
    const { host, pid } = await holderOf(file);
    return host === hostname() && !isRunning(pid);
  } catch {
    // Released meanwhile, or not readable yet.
    return false;
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

async function sameFile(a: string, b: string): Promise<boolean> {
  try {
    const [one, other] = await Promise.all([stat(a), stat(b)]);
    return one.ino === other.ino && one.dev === other.dev;
  } catch {
    return false;
  }
}
