/**
 * Which files of a cache have been found to be what they should be, so that gigabytes are not hashed
 * at each start.
 *
 * A mark holds the file's size, time and inode: a file that was written to since has none. Marks lie
 * in a folder of ours and may be deleted at any time; where none can be written they are remembered
 * by this process alone. Called by blob-store.ts.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { replaceFile } from './own-file.js';

export class VerifiedFiles {
  private readonly seen = new Map<string, string>();

  constructor(private readonly directory: string) {}

  async has(file: string): Promise<boolean> {
    const found = await fingerprint(file);
    if (found === undefined) return false;
    if (this.seen.get(file) === found) return true;
    const mark = await readFile(this.markOf(file), 'utf8').catch(() => undefined);
    if (mark !== found) return false;
    this.seen.set(file, found);
    return true;
  }

  async add(file: string): Promise<void> {
    const found = await fingerprint(file);
    if (found === undefined) return;
    this.seen.set(file, found);
    try {
      await mkdir(this.directory, { recursive: true });
      await replaceFile(this.markOf(file), (own) => writeFile(own, found));
    } catch {
      // A disk that is full or read-only: it is hashed again the next time.
    }
  }

  private markOf(file: string): string {
    return path.join(this.directory, createHash('sha256').update(file).digest('hex').slice(0, 32));
  }
}

async function fingerprint(file: string): Promise<string | undefined> {
  try {
    const { size, mtimeNs, ino } = await stat(file, { bigint: true });
    return `${size} ${mtimeNs} ${ino}`;
  } catch {
    return undefined;
  }
}
