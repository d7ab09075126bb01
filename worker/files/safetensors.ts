/**
 * Headers of safetensors files: which tensors there are and where their bytes lie. No tensor data
 * is read here. A header is believed only after every claim in it was checked against the file's
 * size: native code may read what this returns without looking twice.
 *
 * Layout: u64 little-endian N | N bytes of JSON | data. Offsets in the JSON count from the data.
 */
import { open } from 'node:fs/promises';

import { LoraxError, type LoraxErrorCode } from '../../src/errors.js';
import { fileError, isJsonObject, show } from './config-reader.js';
import { duplicateKey } from './duplicate-key.js';

export interface SafetensorsTensor {
  name: string;
  /** A key of DTYPE_BITS. */
  dtype: string;
  shape: number[];
  /** Bytes from the start of the file. */
  offset: number;
  byteLength: number;
}

export interface SafetensorsFile {
  path: string;
  size: number;
  tensors: Map<string, SafetensorsTensor>;
}

/** The format's element types. Which of them can be *used* is the caller's question. */
export const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** The reference implementation's limit as well. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

export async function readSafetensors(
  path: string,
  code: LoraxErrorCode,
): Promise<SafetensorsFile> {
  const invalid = (message: string, field?: string) =>
    new LoraxError(code, `${path}: ${field === undefined ? '' : `${field}: `}${message}`, {
      data: field === undefined ? { file: path } : { file: path, field },
    });
  const { size, header } = await readHeader(path, code, invalid);

  let json: unknown;
  try {
    json = JSON.parse(header);
  } catch (error) {
    throw invalid(`the header is not valid JSON: ${(error as Error).message}`);
  }
  if (!isJsonObject(json)) throw invalid('the header is not a JSON object');
  const twice = duplicateKey(header);
  if (twice !== undefined) throw invalid('appears twice in the header', twice);

  const dataStart = LENGTH_BYTES + Buffer.byteLength(header);
  const dataBytes = size - dataStart;
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, entry] of Object.entries(json)) {
    if (name === '__metadata__') {
      if (!isJsonObject(entry) || !Object.values(entry).every((v) => typeof v === 'string')) {
        throw invalid('expected an object of strings', '__metadata__');
      }
      continue;
    }
    tensors.set(name, parseEntry(name, entry, dataStart, dataBytes, invalid));
  }
  checkTiling(tensors, dataStart, size, invalid);
  return { path, size, tensors };
}

type Invalid = (message: string, field?: string) => LoraxError;

async function readHeader(
  path: string,
  code: LoraxErrorCode,
  invalid: Invalid,
): Promise<{ size: number; header: string }> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw fileError(path, code, error);
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw invalid('not a regular file');
    const { size } = stats;
    if (size < LENGTH_BYTES) throw invalid(`${size} bytes is too short for a safetensors file`);
    const prefix = Buffer.alloc(LENGTH_BYTES);
    await file.read(prefix, 0, LENGTH_BYTES, 0);
    const headerBytes = prefix.readBigUInt64LE();
    if (headerBytes > BigInt(size - LENGTH_BYTES)) {
      throw invalid(
        `the header claims ${headerBytes} bytes, but only ${size - LENGTH_BYTES} follow: ` +
          'the file is truncated, or not a safetensors file',
      );
    }
    if (headerBytes > MAX_HEADER_BYTES) {
      throw invalid(`a header of ${headerBytes} bytes is over the format's ${MAX_HEADER_BYTES}`);
    }
    const bytes = Buffer.alloc(Number(headerBytes));
    const { bytesRead } = await file.read(bytes, 0, bytes.length, LENGTH_BYTES);
    if (bytesRead !== bytes.length) throw invalid('the file shrank while it was read');
    // A strict decoder, so that the text is as long as the bytes it came from.
    try {
      const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
      return { size, header: decoder.decode(bytes) };
    } catch {
      throw invalid('the header is not valid UTF-8');
    }
  } catch (error) {
    if (LoraxError.isInstance(error)) throw error;
    throw fileError(path, code, error);
  } finally {
    await file.close();
  }
}

function parseEntry(
  name: string,
  entry: unknown,
  dataStart: number,
  dataBytes: number,
  invalid: Invalid,
): SafetensorsTensor {
  if (!isJsonObject(entry)) throw invalid(`expected an object, found ${show(entry)}`, name);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw invalid(`unknown dtype ${show(dtype)}`, name);
  }
  const isSize = (value: unknown): value is number =>
    Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw invalid(`shape ${show(shape)} is not a list of sizes`, name);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw invalid(`data_offsets ${show(offsets)} is not a pair of sizes`, name);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw invalid(`data_offsets ${show(offsets)} run backwards`, name);
  if (end > dataBytes) {
    throw invalid(
      `data_offsets ${show(offsets)} reach past the ${dataBytes} bytes of data: ` +
        'the file is truncated, or its header lies',
      name,
    );
  }
  const bits = shape.reduce((product, size) => product * size, DTYPE_BITS[dtype] as number);
  if (bits !== (end - begin) * 8) {
    throw invalid(
      `shape ${show(shape)} of ${dtype} needs ${bits / 8} bytes, data_offsets span ${end - begin}`,
      name,
    );
  }
  return { name, dtype, shape, offset: dataStart + begin, byteLength: end - begin };
}

/** The tensors, in order of their offsets, cover the data exactly: no overlap, no hole, no rest. */
function checkTiling(
  tensors: Map<string, SafetensorsTensor>,
  dataStart: number,
  size: number,
  invalid: Invalid,
): void {
  const inOrder = [...tensors.values()].sort(
    (a, b) => a.offset - b.offset || a.byteLength - b.byteLength,
  );
  let covered = dataStart;
  for (const { name, offset, byteLength } of inOrder) {
    if (offset < covered) throw invalid('overlaps another tensor', name);
    if (offset > covered) {
      throw invalid(`${offset - covered} bytes before it belong to no tensor`, name);
    }
    covered = offset + byteLength;
  }
  if (covered !== size) throw invalid(`the last ${size - covered} bytes belong to no tensor`);
}
