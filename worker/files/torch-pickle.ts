/**
 * The part of Python's pickle that a saved dict of tensors needs, and nothing of the rest.
 *
 * A pickle is a program. This one can build dicts, lists, tuples and plain values, and call four
 * functions that are known here and only describe a tensor; whatever else it names is refused by
 * name, and nothing of Python's is ever looked up or run. Called by torch-file.ts.
 */

/** Says what is wrong; `field` names the opcode or global at fault. */
export class PickleError extends Error {
  constructor(
    message: string,
    /** True: well-formed, but more than is read here. */
    readonly unsupported = false,
  ) {
    super(message);
  }
}

/** A storage of the file: `key` names its bytes. */
export interface Storage {
  kind: 'storage';
  dtype: string;
  key: string;
  elements: number;
}

export interface PickledTensor {
  kind: 'tensor';
  storage: Storage;
  /** In elements. */
  offset: number;
  shape: number[];
  strides: number[];
}

interface Global {
  kind: 'global';
  name: string;
}

/** Keys are strings in what is read here. */
export interface PickledDict {
  kind: 'dict';
  entries: Map<unknown, unknown>;
}

const MARK = Symbol('mark');

/** torch's storages -> the names of safetensors. Other types have no place in an adapter. */
const STORAGES: Readonly<Record<string, string>> = {
  'torch.FloatStorage': 'F32',
  'torch.HalfStorage': 'F16',
  'torch.BFloat16Storage': 'BF16',
  'torch.DoubleStorage': 'F64',
};

const CALLS: Readonly<Record<string, (args: unknown[]) => unknown>> = {
  'collections.OrderedDict': (args) => {
    if (args.length > 0) throw new PickleError('collections.OrderedDict is called with values');
    return emptyDict();
  },
  'torch._utils._rebuild_tensor_v2': rebuildTensor,
  // A parameter is its tensor.
  'torch._utils._rebuild_parameter': ([tensor]) => {
    if (!isTensor(tensor)) throw new PickleError('a parameter that is no tensor');
    return tensor;
  },
};

const emptyDict = (): PickledDict => ({ kind: 'dict', entries: new Map() });
const hasKind = (value: unknown, kind: string): boolean =>
  typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === kind;
export const isTensor = (value: unknown): value is PickledTensor => hasKind(value, 'tensor');
export const isDict = (value: unknown): value is PickledDict => hasKind(value, 'dict');
const isGlobal = (value: unknown): value is Global => hasKind(value, 'global');
const isSize = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

/** The object that the pickle describes. */
export function readPickle(bytes: Buffer): unknown {
  return new Unpickler(bytes).run();
}

class Unpickler {
  private at = 0;
  private readonly stack: unknown[] = [];
  private readonly memo = new Map<number, unknown>();

  constructor(private readonly bytes: Buffer) {}

  run(): unknown {
    for (;;) {
      const opcode = this.u8();
      const name = String.fromCharCode(opcode);
      if (name === '.') {
        const result = this.pop();
        if (this.stack.length > 0) throw new PickleError('the pickle leaves more than one object');
        return result;
      }
      if (!this.value(name, opcode) && !this.structure(name, opcode)) {
        const code = `0x${opcode.toString(16).padStart(2, '0')}`;
        throw new PickleError(`pickle opcode ${code} has no place in a dict of tensors`, true);
      }
    }
  }

  /** Opcodes that push a value; false for others. */
  private value(name: string, opcode: number): boolean {
    switch (name) {
      case 'N':
        return this.push(undefined);
      case 'K':
        return this.push(this.u8());
      case 'M':
        return this.push(this.take(2).readUInt16LE());
      case 'J':
        return this.push(this.take(4).readInt32LE());
      case 'G':
        return this.push(this.take(8).readDoubleBE());
      case 'X':
        return this.push(this.text(this.take(4).readUInt32LE()));
      case '}':
        return this.push(emptyDict());
      case ']':
        return this.push([]);
      case ')':
        return this.push(Object.freeze([]));
      case '(':
        return this.push(MARK);
      case 'c':
        return this.push(this.global(this.line(), this.line()));
    }
    switch (opcode) {
      case 0x88:
        return this.push(true);
      case 0x89:
        return this.push(false);
      case 0x8a:
        return this.push(this.long(this.u8()));
      case 0x8c:
        return this.push(this.text(this.u8()));
      case 0x8d:
        return this.push(this.text(this.long(8)));
      case 0x93: {
        const [module, name] = this.popTuple(2);
        if (typeof module !== 'string' || typeof name !== 'string') {
          throw new PickleError('a global whose name is no text');
        }
        return this.push(this.global(module, name));
      }
    }
    return false;
  }

  /** Opcodes that build of what is on the stack; false for others. */
  private structure(name: string, opcode: number): boolean {
    switch (name) {
      case 'q':
        return this.remember(this.u8());
      case 'r':
        return this.remember(this.take(4).readUInt32LE());
      case 'h':
        return this.push(this.recall(this.u8()));
      case 'j':
        return this.push(this.recall(this.take(4).readUInt32LE()));
      case 't':
        return this.push(Object.freeze(this.popToMark()));
      case 's':
        return this.setItems(this.popTuple(2));
      case 'u':
        return this.setItems(this.popToMark());
      case 'a':
        return this.append(this.popTuple(1));
      case 'e':
        return this.append(this.popToMark());
      case 'R': {
        const [called, args] = this.popTuple(2);
        return this.push(call(called, args));
      }
      case 'Q':
        return this.push(persistent(this.pop()));
      case 'b': {
        // State of an OrderedDict: a module's _metadata, which no tensor needs.
        this.pop();
        if (!isDict(this.top())) throw new PickleError('state of what is no dict');
        return true;
      }
    }
    switch (opcode) {
      case 0x80: {
        const protocol = this.u8();
        if (protocol > 5) throw new PickleError(`pickle protocol ${protocol}`, true);
        return true;
      }
      case 0x85:
      case 0x86:
      case 0x87:
        return this.push(Object.freeze(this.popTuple(opcode - 0x84)));
      case 0x94:
        return this.remember(this.memo.size);
      case 0x95:
        this.take(8); // a frame's size
        return true;
    }
    return false;
  }

  private global(module: string, name: string): Global {
    const full = `${module}.${name}`;
    if (!Object.hasOwn(CALLS, full) && !Object.hasOwn(STORAGES, full)) {
      throw new PickleError(
        `it names ${full.slice(0, 200)}, which is no part of a dict of tensors: it is not run`,
        true,
      );
    }
    return { kind: 'global', name: full };
  }

  private setItems(items: unknown[]): boolean {
    const dict = this.top();
    if (!isDict(dict) || items.length % 2 !== 0) throw new PickleError('items of what is no dict');
    for (let i = 0; i < items.length; i += 2) dict.entries.set(items[i], items[i + 1]);
    return true;
  }

  private append(items: unknown[]): boolean {
    const list = this.top();
    if (!Array.isArray(list) || Object.isFrozen(list)) {
      throw new PickleError('items of what is no list');
    }
    for (const item of items) (list as unknown[]).push(item);
    return true;
  }

  private push(value: unknown): true {
    this.stack.push(value);
    return true;
  }

  private pop(): unknown {
    if (this.stack.length === 0) throw new PickleError('the pickle takes more than it has');
    const value = this.stack.pop();
    if (value === MARK) throw new PickleError('the pickle takes more than it has');
    return value;
  }

  private top(): unknown {
    if (this.stack.length === 0) throw new PickleError('the pickle takes more than it has');
    return this.stack[this.stack.length - 1];
  }

  private popTuple(count: number): unknown[] {
    const values = Array.from({ length: count }, () => this.pop());
    return values.reverse();
  }

  private popToMark(): unknown[] {
    const mark = this.stack.lastIndexOf(MARK);
    if (mark < 0) throw new PickleError('the pickle takes more than it has');
    return this.stack.splice(mark).slice(1);
  }

  private remember(key: number): true {
    this.memo.set(key, this.top());
    return true;
  }

  private recall(key: number): unknown {
    if (!this.memo.has(key)) throw new PickleError('the pickle recalls what it never had');
    return this.memo.get(key);
  }

  private take(count: number): Buffer {
    if (count > this.bytes.length - this.at) throw new PickleError('the pickle is cut off');
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  private u8(): number {
    return this.take(1).readUInt8();
  }

  private long(count: number): number {
    let value = 0n;
    const bytes = this.take(count);
    for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number);
    if (count > 0) value = BigInt.asIntN(count * 8, value);
    if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new PickleError('a number no tensor has');
    }
    return Number(value);
  }

  private text(count: number): string {
    return this.take(count).toString('utf8');
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    if (end < 0) throw new PickleError('the pickle is cut off');
    const line = this.text(end - this.at);
    this.at = end + 1;
    return line;
  }
}

function call(called: unknown, args: unknown): unknown {
  if (!isGlobal(called) || !Object.hasOwn(CALLS, called.name) || !Array.isArray(args)) {
    const what = isGlobal(called) ? called.name : 'something that is no function';
    throw new PickleError(`it calls ${what}`, true);
  }
  return (CALLS[called.name] as (args: unknown[]) => unknown)(args);
}

/** ('storage', type, key, location, elements) */
function persistent(id: unknown): Storage {
  if (Array.isArray(id) && id.length === 5 && id[0] === 'storage') {
    const [, type, key, , elements] = id as unknown[];
    const dtype = isGlobal(type) ? STORAGES[type.name] : undefined;
    if (dtype !== undefined && typeof key === 'string' && isSize(elements)) {
      return { kind: 'storage', dtype, key, elements };
    }
  }
  throw new PickleError('a storage that torch.save does not write');
}

/** (storage, offset, shape, strides, requires_grad, hooks, ...) */
function rebuildTensor([storage, offset, shape, strides]: unknown[]): PickledTensor {
  const areSizes = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every(isSize);
  if (
    !hasKind(storage, 'storage') ||
    !isSize(offset) ||
    !areSizes(shape) ||
    !areSizes(strides) ||
    shape.length !== strides.length
  ) {
    throw new PickleError('a tensor that torch.save does not write');
  }
  return { kind: 'tensor', storage: storage as Storage, offset, shape, strides };
}
