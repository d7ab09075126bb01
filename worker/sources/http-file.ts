/**
 * One file over HTTP into one file on disk: resumed, retried, checked.
 *
 * What a failed download has brought stays in the partial file, and the next one goes on from there
 * (Range); only a full disk and a wrong checksum remove it. When the promise resolves, all of the
 * file is there and its checksum, where the source names one, is right. The caller sees to it that
 * nobody else writes the partial file (file-lock.ts). Called by blob-store.ts.
 */
import type { Hash } from 'node:crypto';
import { open, rm, type FileHandle } from 'node:fs/promises';
import { beginChecksum, hashFile, type Checksum } from './checksum.js';
import { FetchFailure, diskFailure } from './fetch-failure.js';
import type { FetchPolicy } from './fetch-policy.js';
import type { HostPlaces } from './host-places.js';
import { httpRequest, type HttpAnswer, type HttpRequest } from './http-response.js';
import { withRetries } from './retries.js';

export interface RemoteFile {
  /** Asked for each try: signatures expire. */
  request(): Promise<HttpRequest>;
  /** Bytes; undefined = as the server says. */
  size?: number | undefined;
  checksum?: Checksum | undefined;
  /** Its version, as ETag writes it: what is resumed is of no other. */
  etag?: string | undefined;
}

export interface HttpFileContext {
  policy: FetchPolicy;
  places: HostPlaces;
  signal: AbortSignal;
  /** Bytes of the file that are there. */
  onBytes(bytes: number): void;
}

export async function downloadFile(
  remote: RemoteFile,
  partial: string,
  context: HttpFileContext,
): Promise<void> {
  let file: FileHandle;
  try {
    file = await open(partial, 'a+').then(async (created) => {
      await created.close();
      return open(partial, 'r+');
    });
  } catch (cause) {
    throw diskFailure(cause);
  }
  const download = new Download(remote, file, partial, context);
  try {
    await download.run();
    await file.close();
  } catch (thrown) {
    await file.close();
    const { reason } = thrown as Partial<FetchFailure>;
    if (reason === 'disk' || reason === 'hash-mismatch') await rm(partial, { force: true });
    throw thrown;
  }
}

class Download {
  private have = 0;
  /** The most that was ever here: less than that again is no progress. */
  private furthest = 0;
  private hash: Hash | undefined;
  private mismatches = 0;

  constructor(
    private readonly remote: RemoteFile,
    private readonly file: FileHandle,
    private readonly partial: string,
    private readonly context: HttpFileContext,
  ) {}

  async run(): Promise<void> {
    const { policy, signal } = this.context;
    await this.adopt();
    await withRetries(policy, signal, async (progress) => {
      const { size } = this.remote;
      if (this.have === 0 || this.have !== size) await this.attempt(progress);
      await this.check();
    });
  }

  /** What an earlier download has left; of a file without a version nothing is worth keeping. */
  private async adopt(): Promise<void> {
    const { size, checksum, etag } = this.remote;
    const { size: found } = await this.file.stat();
    const resumable = checksum !== undefined || etag !== undefined;
    this.have = found;
    if (!resumable || (size !== undefined && found > size)) await this.restart();
    else this.begin();
    if (this.have === 0) return;
    if (this.hash !== undefined) await hashFile(this.hash, this.partial, this.context.signal);
    this.furthest = found;
    this.context.onBytes(found);
  }

  private async restart(): Promise<void> {
    if (this.have > 0) await this.onDisk(() => this.file.truncate(0));
    this.have = 0;
    this.context.onBytes(0);
    this.begin();
  }

  private begin(): void {
    const { checksum, size } = this.remote;
    // Git's header holds the size, which is known wherever such a checksum is.
    this.hash = checksum && beginChecksum(checksum.algorithm, size ?? 0);
  }

  private async attempt(progress: () => void): Promise<void> {
    const { places, policy, signal } = this.context;
    const request = await this.remote.request();
    const leave = await places.take(new URL(request.url).host, signal);
    const quiet = setTimeout(leave, policy.quietMs);
    try {
      const answer = await httpRequest(this.ranged(request), policy, signal);
      try {
        await this.receive(answer, () => {
          quiet.refresh();
          if (this.have > this.furthest) progress();
          this.furthest = Math.max(this.furthest, this.have);
        });
      } finally {
        answer.close();
      }
    } finally {
      clearTimeout(quiet);
      leave();
    }
  }

  private ranged({ url, headers }: HttpRequest): HttpRequest {
    if (this.have === 0) return { url, headers };
    const { etag } = this.remote;
    const range = { range: `bytes=${this.have}-` };
    return { url, headers: { ...headers, ...range, ...(etag && { 'if-range': etag }) } };
  }

  private async receive(answer: HttpAnswer, onPiece: () => void): Promise<void> {
    const { response } = answer;
    const total = totalBytes(response);
    const start = response.status === 206 ? rangeStart(response) : 0;
    // A server may send all of it instead of what was asked for.
    if (response.status === 416 || start !== this.have) await this.restart();
    if (response.status === 416 || start !== this.have) {
      const message = 'the server sends another part of it than was asked for';
      throw new FetchFailure('truncated', message, { retryable: true });
    }
    const { size = total } = this.remote;
    for await (const piece of answer.body()) {
      if (size !== undefined && this.have + piece.length > size) {
        await this.restart();
        throw new FetchFailure('truncated', `it is longer than ${size} bytes`, { retryable: true });
      }
      await this.onDisk(() => writeAll(this.file, piece, this.have));
      this.hash?.update(piece);
      this.have += piece.length;
      onPiece();
      this.context.onBytes(this.have);
    }
    if (size !== undefined && this.have < size) {
      const message = `it ended after ${this.have} of ${size} bytes`;
      throw new FetchFailure('truncated', message, { retryable: true });
    }
  }

  private async check(): Promise<void> {
    const { checksum } = this.remote;
    if (checksum === undefined || this.hash === undefined) return;
    const found = this.hash.digest('hex');
    if (found === checksum.hex) return;
    await this.restart();
    const message = `its ${checksum.algorithm} is ${found}, not ${checksum.hex}`;
    // Once more from the start: the part that was here before may have been the wrong one.
    throw new FetchFailure('hash-mismatch', message, { retryable: this.mismatches++ === 0 });
  }

  private async onDisk<T>(write: () => Promise<T>): Promise<T> {
    try {
      return await write();
    } catch (cause) {
      throw diskFailure(cause);
    }
  }
}

async function writeAll(file: FileHandle, piece: Uint8Array, position: number): Promise<void> {
  let written = 0;
  while (written < piece.length) {
    const left = piece.length - written;
    written += (await file.write(piece, written, left, position + written)).bytesWritten;
  }
}

function rangeStart(response: Response): number | undefined {
  const match = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
  return match === null ? undefined : Number(match[1]);
}

/** Of the whole file. */
function totalBytes(response: Response): number | undefined {
  const ranged = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  if (ranged !== null) return Number(ranged[1]);
  const length = response.headers.get('content-length');
  return length === null || response.status !== 200 ? undefined : Number(length);
}
