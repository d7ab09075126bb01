/**
 * The central directory of a zip file: where each entry's bytes lie. No entry is read here.
 *
 * Only entries that are stored as they are have an offset; what is compressed is told by `method`.
 * Every claim is checked against the file's size. Used for what torch.save writes.
 *
 * Layout: (local header | bytes)* | central headers | [zip64 end | its locator] | end | comment
 */
import type { FileHandle } from 'node:fs/promises';

export interface ZipEntry {
  name: string;
  /** 0: stored as it is. */
  method: number;
  /** Of the local header; `dataOffset` finds the bytes behind it. */
  headerOffset: number;
  byteLength: number;
}

/** Says what is wrong; the caller names the file. */
export class ZipError extends Error {}

const END = { signature: 0x06054b50, bytes: 22 };
const END_64_LOCATOR = { signature: 0x07064b50, bytes: 20 };
const END_64 = { signature: 0x06064b50, bytes: 56 };
const CENTRAL = { signature: 0x02014b50, bytes: 46 };
const LOCAL = { signature: 0x04034b50, bytes: 30 };
const MAX_COMMENT_BYTES = 0xffff;
/** Adapters have thousands of tensors; a directory of this size has hundreds of thousands. */
const MAX_DIRECTORY_BYTES = 64 << 20;
const ENCRYPTED = 1;

export async function readZipDirectory(
  file: FileHandle,
  size: number,
): Promise<Map<string, ZipEntry>> {
  const { offset, bytes, count } = await findDirectory(file, size);
  if (offset + bytes > size) throw new ZipError('its directory reaches past its end');
  if (bytes > MAX_DIRECTORY_BYTES) throw new ZipError(`a directory of ${bytes} bytes is too large`);
  const directory = await readAt(file, offset, bytes);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL.bytes > bytes || directory.readUInt32LE(at) !== CENTRAL.signature) {
      throw new ZipError('its directory is damaged');
    }
    const nameBytes = directory.readUInt16LE(at + 28);
    const extraBytes = directory.readUInt16LE(at + 30);
    const end = at + CENTRAL.bytes + nameBytes + extraBytes;
    if (end > bytes) throw new ZipError('its directory is damaged');
    const name = directory.toString('utf8', at + CENTRAL.bytes, at + CENTRAL.bytes + nameBytes);
    const entry = parseEntry(name, directory, at, directory.subarray(end - extraBytes, end));
    if (entries.has(name)) throw new ZipError(`${name} is there twice`);
    if (entry.headerOffset + LOCAL.bytes + entry.byteLength > size) {
      throw new ZipError(`${name} reaches past the end of the file: it is cut off`);
    }
    entries.set(name, entry);
    at = end + directory.readUInt16LE(at + 32);
  }
  return entries;
}

/** Where a stored entry's bytes begin: only its local header tells how long that is. */
export async function dataOffset(file: FileHandle, size: number, entry: ZipEntry): Promise<number> {
  const header = await readAt(file, entry.headerOffset, LOCAL.bytes);
  if (header.readUInt32LE(0) !== LOCAL.signature) {
    throw new ZipError(`${entry.name} is not where the directory says`);
  }
  const begin =
    entry.headerOffset + LOCAL.bytes + header.readUInt16LE(26) + header.readUInt16LE(28);
  if (begin + entry.byteLength > size) {
    throw new ZipError(`${entry.name} reaches past the end of the file: it is cut off`);
  }
  return begin;
}

/** Exactly so many bytes. */
export async function readAt(file: FileHandle, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  let done = 0;
  while (done < bytes) {
    const { bytesRead } = await file.read(buffer, done, bytes - done, offset + done);
    if (bytesRead === 0) throw new ZipError('it ended while it was read');
    done += bytesRead;
  }
  return buffer;
}

interface Place {
  offset: number;
  bytes: number;
  count: number;
}

async function findDirectory(file: FileHandle, size: number): Promise<Place> {
  const tailBytes = Math.min(size, END.bytes + MAX_COMMENT_BYTES + END_64_LOCATOR.bytes);
  const tail = await readAt(file, size - tailBytes, tailBytes);
  for (let at = tailBytes - END.bytes; at >= 0; at--) {
    if (tail.readUInt32LE(at) !== END.signature) continue;
    if (at + END.bytes + tail.readUInt16LE(at + 20) !== tailBytes) continue;
    const place = {
      offset: tail.readUInt32LE(at + 16),
      bytes: tail.readUInt32LE(at + 12),
      count: tail.readUInt16LE(at + 10),
    };
    const locator = at - END_64_LOCATOR.bytes;
    const has64 = locator >= 0 && tail.readUInt32LE(locator) === END_64_LOCATOR.signature;
    return has64 ? readEnd64(file, size, tail.readBigUInt64LE(locator + 8)) : place;
  }
  throw new ZipError('it has no zip directory at its end: it is cut off, or no zip file');
}

async function readEnd64(file: FileHandle, size: number, at: bigint): Promise<Place> {
  if (at + BigInt(END_64.bytes) > BigInt(size)) throw new ZipError('its directory is damaged');
  const end = await readAt(file, Number(at), END_64.bytes);
  if (end.readUInt32LE(0) !== END_64.signature) throw new ZipError('its directory is damaged');
  return {
    offset: safe(end.readBigUInt64LE(48)),
    bytes: safe(end.readBigUInt64LE(40)),
    count: safe(end.readBigUInt64LE(32)),
  };
}

function parseEntry(name: string, directory: Buffer, at: number, extra: Buffer): ZipEntry {
  if ((directory.readUInt16LE(at + 8) & ENCRYPTED) !== 0) {
    throw new ZipError(`${name} is encrypted`);
  }
  const large = zip64Values(extra);
  const wide = (value: number) => {
    if (value !== 0xffffffff) return value;
    const next = large.shift();
    if (next === undefined) throw new ZipError(`${name} has a damaged entry in the directory`);
    return next;
  };
  // In this order.
  const byteLength = wide(directory.readUInt32LE(at + 24));
  const storedBytes = wide(directory.readUInt32LE(at + 20));
  const headerOffset = wide(directory.readUInt32LE(at + 42));
  const method = directory.readUInt16LE(at + 10);
  if (method === 0 && storedBytes !== byteLength) {
    throw new ZipError(`${name} has a damaged entry in the directory`);
  }
  return { name, method, headerOffset, byteLength };
}

/** The numbers that did not fit into 32 bits. */
function zip64Values(extra: Buffer): number[] {
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra.readUInt16LE(at + 2)) {
    if (extra.readUInt16LE(at) !== 1) continue;
    const end = Math.min(extra.length, at + 4 + extra.readUInt16LE(at + 2));
    const values = [];
    for (let value = at + 4; value + 8 <= end; value += 8) {
      values.push(safe(extra.readBigUInt64LE(value)));
    }
    return values;
  }
  return [];
}

function safe(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ZipError('its directory is damaged');
  return Number(value);
}
