/**
 * The checksums by which sources name the content of a file.
 *
 * `sha256`: of its bytes (Git LFS). `git-sha1`: of its bytes behind git's header, which holds their
 * number: the id of a blob in git.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';

export interface Checksum {
  algorithm: 'sha256' | 'git-sha1';
  /** Lower case. */
  hex: string;
}

export function beginChecksum(algorithm: Checksum['algorithm'], size: number): Hash {
  if (algorithm === 'sha256') return createHash('sha256');
  return createHash('sha1').update(`blob ${size}\0`);
}

/** Adds the file's bytes to `hash`; tells how many they were. */
export async function hashFile(hash: Hash, file: string, signal?: AbortSignal): Promise<number> {
  let bytes = 0;
  const options = { highWaterMark: 1 << 20, ...(signal === undefined ? {} : { signal }) };
  for await (const piece of createReadStream(file, options)) {
    hash.update(piece as Buffer);
    bytes += (piece as Buffer).length;
  }
  return bytes;
}
