// Files of torch.save, written byte by byte: a zip file of a pickle and of storages.

export interface ZipFile {
  name: string;
  data: Buffer;
  /** 0: stored. What it claims; the bytes are written as they are. */
  method?: number;
}

/** As torch writes it: the directory at the end, lengths in it. */
export function zip(files: ZipFile[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, data, method = 0 } of files) {
    const text = Buffer.from(name);
    // torch pads, so that storages begin at multiples of 64.
    const padding = (64 - ((at + 30 + text.length) % 64)) % 64;
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(method, 8);
    local.writeUInt16LE(text.length, 26);
    local.writeUInt16LE(padding, 28);
    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    central.writeUInt16LE(method, 10);
    central.writeUInt32LE(data.length, 20);
    central.writeUInt32LE(data.length, 24);
    central.writeUInt16LE(text.length, 28);
    central.writeUInt32LE(at, 42);
    directory.push(central, text);
    parts.push(local, text, Buffer.alloc(padding), data);
    at += 30 + text.length + padding + data.length;
  }
  const bytes = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(bytes.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, bytes, end]);
}

export interface TorchTensor {
  shape: number[];
  strides?: number[];
  offset?: number;
  storage?: string;
  key?: string;
  /** Of its storage; as many as the shape has, unless given. */
  elements?: number;
  rebuild?: string;
}

const ascii = (text: string) => Buffer.from(text, 'latin1');
const int = (value: number) => {
  const bytes = Buffer.alloc(5);
  bytes.write('J', 'latin1');
  bytes.writeInt32LE(value, 1);
  return bytes;
};
export const text = (value: string) => {
  const bytes = Buffer.from(value);
  const head = Buffer.alloc(5);
  head.write('X', 'latin1');
  head.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};
export const global = (module: string, name: string) => ascii(`c${module}\n${name}\n`);
const tuple = (...items: Buffer[]) => Buffer.concat([ascii('('), ...items, ascii('t')]);

/** Protocol 2, as torch.save writes a dict of tensors. */
export function pickle(tensors: Record<string, TorchTensor>, extra: Buffer[] = []): Buffer {
  const items = Object.entries(tensors).map(([name, tensor], i) => {
    const { shape, offset = 0, storage = 'FloatStorage', key = String(i) } = tensor;
    const elements = tensor.elements ?? shape.reduce((product, n) => product * n, 1);
    const strides =
      tensor.strides ?? shape.map((_, axis) => shape.slice(axis + 1).reduce((p, n) => p * n, 1));
    const [module, rebuild] = (tensor.rebuild ?? 'torch._utils._rebuild_tensor_v2').split(
      /\.(?=[^.]*$)/,
    ) as [string, string];
    const id = tuple(
      text('storage'),
      global('torch', storage),
      text(key),
      text('cpu'),
      int(elements),
    );
    return Buffer.concat([
      text(name),
      global(module, rebuild),
      tuple(
        Buffer.concat([id, ascii('Q')]),
        int(offset),
        tuple(...shape.map(int)),
        tuple(...strides.map(int)),
        Buffer.from([0x89]),
        Buffer.concat([global('collections', 'OrderedDict'), ascii(')R')]),
      ),
      ascii('R'),
    ]);
  });
  return Buffer.concat([Buffer.from([0x80, 2]), ascii('}('), ...items, ...extra, ascii('u.')]);
}

/** The tensors, with storages of their size. */
export function torchFile(tensors: Record<string, TorchTensor>, changes: ZipFile[] = []): Buffer {
  const files: ZipFile[] = [
    { name: 'adapter_model/data.pkl', data: pickle(tensors) },
    { name: 'adapter_model/byteorder', data: Buffer.from('little') },
    ...Object.values(tensors).map(({ shape }, i) => ({
      name: `adapter_model/data/${i}`,
      data: Buffer.alloc(
        shape.reduce((product, n) => product * n, 4),
        i + 1,
      ),
    })),
    { name: 'adapter_model/version', data: Buffer.from('3\n') },
  ];
  for (const change of changes) {
    const at = files.findIndex(({ name }) => name === change.name);
    files.splice(at < 0 ? files.length : at, at < 0 ? 0 : 1, change);
  }
  return zip(files);
}
