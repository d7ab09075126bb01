/**
 * One repository's part of a cache, laid out as Python's huggingface_hub does it, so that it and we
 * share files:
 *
 *   <cache>/<repository>/blobs/<etag>                   what was fetched
 *   <cache>/<repository>/snapshots/<version>/<name>     a relative link to its blob
 *   <cache>/<repository>/refs/<branch or tag>           the version it stood for when last asked
 *
 * Always holds: a blob appears by renaming, when all of it is there and checked; a ref names only
 * versions whose files have all been there. So whoever is killed at any point leaves a sound cache, and a
 * partial file (`<etag>.lorax.incomplete`) that the next one goes on with. A blob that is not what
 * its name says is fetched again. Called by hub-source.ts and url-source.ts.
 */
import {
  copyFile,
  mkdir,
  readFile,
  readlink,
  rename,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { beginChecksum, hashFile, type Checksum } from './checksum.js';
import { FetchFailure, diskFailure } from './fetch-failure.js';
import { clearDeadLocks, lockFile } from './file-lock.js';
import { downloadFile, type HttpFileContext, type RemoteFile } from './http-file.js';
import { replaceFile } from './own-file.js';
import type { VerifiedFiles } from './verified-files.js';

export class BlobStore {
  readonly directory: string;

  constructor(
    private readonly cache: string,
    private readonly repository: string,
    private readonly verified: VerifiedFiles,
  ) {
    this.directory = path.join(cache, repository);
  }

  snapshot(version: string): string {
    return path.join(this.directory, 'snapshots', version);
  }

  /** Fetches the blob unless it is here and right. */
  async fetch(name: string, remote: RemoteFile, context: HttpFileContext): Promise<void> {
    const blob = this.blob(name);
    const lock = path.join(this.cache, '.locks', this.repository, `${name}.lorax.lock`);
    if (await this.isIntact(name, remote, context)) {
      // Its fetcher may have been killed when all but this was done.
      await clearDeadLocks(lock);
      return;
    }
    const release = await lockFile(lock, context.signal);
    try {
      // Another process may have fetched it while this one waited.
      if (await this.isIntact(name, remote, context)) return;
      const partial = `${blob}.lorax.incomplete`;
      await onDisk(() => mkdir(path.dirname(blob), { recursive: true }));
      await downloadFile(remote, partial, context);
      await onDisk(() => rename(partial, blob));
      await this.verified.add(blob);
    } finally {
      await release();
    }
  }

  /** Whether the version's files are what the names of their blobs say. */
  async isSound(
    version: string,
    files: readonly string[],
    context: HttpFileContext,
  ): Promise<boolean> {
    const checks = files.map(async (file) => {
      const pointer = path.join(this.snapshot(version), file);
      const blob = path.basename(await readlink(pointer).catch(() => ''));
      const checksum = checksumNamed(blob);
      // A copy, where links cannot be made, has no name to compare with.
      if (checksum === undefined) return true;
      return this.isIntact(blob, { checksum }, context);
    });
    return (await Promise.all(checks)).every(Boolean);
  }

  /** Makes the blob the version's file of that name. */
  async link(version: string, file: string, name: string): Promise<void> {
    const pointer = path.join(this.snapshot(version), file);
    const target = path.relative(path.dirname(pointer), this.blob(name));
    await onDisk(async () => {
      await mkdir(path.dirname(pointer), { recursive: true });
      await replaceFile(pointer, async (own) => {
        try {
          await symlink(target, own);
        } catch {
          // Windows without the right to make links.
          await copyFile(this.blob(name), own);
        }
      });
    });
  }

  async readRef(revision: string): Promise<string | undefined> {
    try {
      return (await readFile(this.refFile(revision), 'utf8')).trim() || undefined;
    } catch {
      return undefined;
    }
  }

  async writeRef(revision: string, version: string): Promise<void> {
    if (revision === version || (await this.readRef(revision)) === version) return;
    const file = this.refFile(revision);
    await onDisk(async () => {
      await mkdir(path.dirname(file), { recursive: true });
      await replaceFile(file, (own) => writeFile(own, version));
    });
  }

  private blob(name: string): string {
    return path.join(this.directory, 'blobs', name);
  }

  private refFile(revision: string): string {
    return path.join(this.directory, 'refs', revision);
  }

  private async isIntact(
    name: string,
    { size, checksum }: Pick<RemoteFile, 'size' | 'checksum'>,
    { signal, onBytes }: HttpFileContext,
  ): Promise<boolean> {
    const blob = this.blob(name);
    const found = await stat(blob).catch(() => undefined);
    if (found === undefined || (size !== undefined && found.size !== size)) return false;
    if (await this.verified.has(blob)) {
      onBytes(found.size);
      return true;
    }
    if (checksum === undefined) return false;
    const hash = beginChecksum(checksum.algorithm, found.size);
    await onDisk(() => hashFile(hash, blob, signal));
    if (hash.digest('hex') !== checksum.hex) return false;
    await this.verified.add(blob);
    onBytes(found.size);
    return true;
  }
}

/** The hub's blobs are called by their checksum: Git LFS's or git's. */
function checksumNamed(blob: string): Checksum | undefined {
  if (/^[0-9a-f]{64}$/.test(blob)) return { algorithm: 'sha256', hex: blob };
  if (/^[0-9a-f]{40}$/.test(blob)) return { algorithm: 'git-sha1', hex: blob };
  return undefined;
}

async function onDisk<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (thrown) {
    throw thrown instanceof FetchFailure ? thrown : diskFailure(thrown);
  }
}
