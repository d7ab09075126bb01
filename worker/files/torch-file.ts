/**
 * adapter_model.bin, what torch.save wrote: which tensors there are and where their bytes lie.
 *
 * torch.save makes a zip file of one pickle, that describes the tensors, and one entry per storage.
 * The pickle is read by torch-pickle.ts, which runs nothing; storages are stored as they are, so a
 * tensor is an offset into the file, as in safetensors, and native code reads it the same way. Every
 * claim is checked against the entry's size.
 */
import { open, type FileHandle } from 'node:fs/promises';

import { LoraxError, type LoraxErrorCode } from '../../src/errors.js';
import { fileError, show } from './config-reader.js';
import { DTYPE_BITS, type SafetensorsFile, type SafetensorsTensor } from './safetensors.js';
import { isDict, isTensor, PickleError, readPickle, type PickledTensor } from './torch-pickle.js';
import { dataOffset, readAt, readZipDirectory, ZipError, type ZipEntry } from './zip-directory.js';

/** Hundreds of bytes for each tensor. */
const MAX_PICKLE_BYTES = 64 << 20;
/** What the format before torch 1.6 starts with. */
const OLD_MAGIC = Buffer.from('80028a0a6cfc9c46f920', 'hex');
const CONVERT =
  'convert it: load the adapter with PEFT and save it with ' +
  'save_pretrained(..., safe_serialization=True)';

export async function readTorchFile(
  path: string,
  codes: { invalid: LoraxErrorCode; unsupported: LoraxErrorCode },
): Promise<SafetensorsFile> {
  const error = (code: LoraxErrorCode, message: string, field?: string) =>
    new LoraxError(code, `${path}: ${field === undefined ? '' : `${field}: `}${message}`, {
      data: field === undefined ? { file: path } : { file: path, field },
    });
  const fault: Fault = {
    invalid: (message, field) => error(codes.invalid, message, field),
    unsupported: (message, field) => error(codes.unsupported, `${message}; ${CONVERT}`, field),
  };
  let file;
  try {
    file = await open(path, 'r');
  } catch (thrown) {
    throw fileError(path, codes.invalid, thrown);
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw fault.invalid('not a regular file');
    return { path, size: stats.size, tensors: await readTensors(file, stats.size, fault) };
  } catch (thrown) {
    if (LoraxError.isInstance(thrown)) throw thrown;
    if (thrown instanceof ZipError) throw fault.invalid(thrown.message);
    if (thrown instanceof PickleError) {
      throw thrown.unsupported ? fault.unsupported(thrown.message) : fault.invalid(thrown.message);
    }
    throw fileError(path, codes.invalid, thrown);
  } finally {
    await file.close();
  }
}

interface Fault {
  invalid(message: string, field?: string): LoraxError;
  unsupported(message: string, field?: string): LoraxError;
}

async function readTensors(
  file: FileHandle,
  size: number,
  fault: Fault,
): Promise<Map<string, SafetensorsTensor>> {
  const start = await readAt(file, 0, Math.min(size, OLD_MAGIC.length));
  if (start.equals(OLD_MAGIC)) throw fault.unsupported('torch’s format of before version 1.6');
  const archive = new Archive(file, size, await readZipDirectory(file, size), fault);
  const object = readPickle(await archive.pickle());
  if (!isDict(object)) throw fault.invalid('holds no dict of tensors');
  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, value] of object.entries) {
    if (typeof name !== 'string') throw fault.invalid('a tensor whose name is no text');
    if (!isTensor(value)) throw fault.invalid('is no tensor', name);
    tensors.set(name, await archive.place(name, value));
  }
  return tensors;
}

/** The entries "<root>/data.pkl" and "<root>/data/<key>". */
class Archive {
  private readonly root: string;
  private readonly offsets = new Map<string, Promise<number>>();

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
    private readonly entries: ReadonlyMap<string, ZipEntry>,
    private readonly fault: Fault,
  ) {
    const pickles = [...entries.keys()].filter((name) => /^[^/]*\/data\.pkl$/.test(name));
    if (pickles.length !== 1) throw fault.invalid('is no file of torch.save: it has no data.pkl');
    this.root = (pickles[0] as string).slice(0, -'data.pkl'.length);
  }

  async pickle(): Promise<Buffer> {
    const order = this.entries.get(`${this.root}byteorder`);
    if (order !== undefined && (await this.read(order)).toString('latin1') !== 'little') {
      throw this.fault.unsupported('was written on a big-endian machine');
    }
    return this.read(this.entries.get(`${this.root}data.pkl`) as ZipEntry);
  }

  async place(name: string, tensor: PickledTensor): Promise<SafetensorsTensor> {
    const { storage, shape, strides } = tensor;
    const entry = this.entries.get(`${this.root}data/${storage.key}`);
    if (entry === undefined) throw this.fault.invalid('its data is missing', name);
    const elementBytes = (DTYPE_BITS[storage.dtype] as number) / 8;
    const elements = shape.reduce((product, n) => product * n, 1);
    if (!isContiguous(shape, strides)) {
      const message = `shape ${show(shape)} with strides ${show(strides)}: its rows are not together`;
      throw this.fault.unsupported(message, name);
    }
    const end = (tensor.offset + elements) * elementBytes;
    if (end > entry.byteLength || storage.elements * elementBytes > entry.byteLength) {
      throw this.fault.invalid(
        `shape ${show(shape)} of ${storage.dtype} from element ${tensor.offset} on reaches past ` +
          `the ${entry.byteLength} bytes of its data`,
        name,
      );
    }
    return {
      name,
      dtype: storage.dtype,
      shape,
      offset: (await this.offset(entry)) + tensor.offset * elementBytes,
      byteLength: elements * elementBytes,
    };
  }

  private async read(entry: ZipEntry): Promise<Buffer> {
    if (entry.byteLength > MAX_PICKLE_BYTES) {
      throw this.fault.invalid(`${entry.name} has ${entry.byteLength} bytes, which is too much`);
    }
    return readAt(this.file, await this.offset(entry), entry.byteLength);
  }

  private offset(entry: ZipEntry): Promise<number> {
    if (entry.method !== 0) {
      throw this.fault.unsupported(`${entry.name} is compressed, which torch.save never does`);
    }
    const known = this.offsets.get(entry.name) ?? dataOffset(this.file, this.size, entry);
    this.offsets.set(entry.name, known);
    return known;
  }
}

/** Row-major without gaps; the stride of one element or none says nothing. */
function isContiguous(shape: number[], strides: number[]): boolean {
  let expected = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    const length = shape[i] as number;
    if (length > 1 && strides[i] !== expected) return false;
    expected *= length;
  }
  return true;
}
