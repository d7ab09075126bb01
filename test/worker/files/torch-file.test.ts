import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { ADAPTER_CODES } from '../../../worker/files/config-reader.js';
import { readTorchFile } from '../../../worker/files/torch-file.js';
import { expectError, temporaryDirectory } from './fixtures.js';
import { global, pickle, text, torchFile, type TorchTensor } from './torch-fixtures.js';

const BY_TORCH = fileURLToPath(
  new URL('../../golden/formats/torch-file/adapter_model.bin', import.meta.url),
);

function write(bytes: Buffer): string {
  const file = path.join(temporaryDirectory(), 'adapter_model.bin');
  writeFileSync(file, bytes);
  return file;
}
const read = (bytes: Buffer) => readTorchFile(write(bytes), ADAPTER_CODES);
const refused = (
  bytes: Buffer,
  code: 'ADAPTER_INVALID' | 'ADAPTER_UNSUPPORTED',
  ...parts: string[]
) => expectError(() => read(bytes), code, 'adapter_model.bin', ...parts);
const withPickle = (data: Buffer) =>
  torchFile({ w: { shape: [2, 3] } }, [{ name: 'adapter_model/data.pkl', data }]);
const one = (tensor: Partial<TorchTensor>) =>
  withPickle(pickle({ w: { shape: [2, 3], ...tensor } }));

describe('files of torch.save', () => {
  test('as torch itself writes them', async () => {
    const { tensors, size } = await readTorchFile(BY_TORCH, ADAPTER_CODES);
    expect(size).toBe(readFileSync(BY_TORCH).length);
    expect(tensors.size).toBe(28);
    const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';
    const tensor = tensors.get(name);
    expect(tensor).toMatchObject({ name, dtype: 'F32', shape: [6, 32], byteLength: 6 * 32 * 4 });
    // Drawn with a deviation of 0.25: the offset leads to numbers, not to headers.
    const bytes = readFileSync(BY_TORCH).subarray(tensor!.offset, tensor!.offset + 6 * 32 * 4);
    const values = Array.from({ length: 6 * 32 }, (_, i) => bytes.readFloatLE(i * 4));
    const deviation = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    expect(deviation).toBeGreaterThan(0.2);
    expect(deviation).toBeLessThan(0.3);
  });

  test('offsets, shared storages, other types', async () => {
    const bytes = torchFile({ a: { shape: [4, 3] }, b: { shape: [4] } }, [
      {
        name: 'adapter_model/data.pkl',
        data: pickle({
          a: { shape: [2, 3], offset: 6, key: '0', elements: 12 },
          b: { shape: [4], storage: 'HalfStorage', key: '1' },
          c: { shape: [1, 2], offset: 1, storage: 'BFloat16Storage', key: '1', strides: [9, 1] },
        }),
      },
    ]);
    const { tensors } = await read(bytes);
    const { a, b, c } = Object.fromEntries(tensors);
    expect(bytes.subarray(a!.offset, a!.offset + a!.byteLength)).toEqual(Buffer.alloc(24, 1));
    expect(bytes[a!.offset + 24]).not.toBe(1);
    expect(b).toMatchObject({ dtype: 'F16', byteLength: 8 });
    expect(c).toMatchObject({ dtype: 'BF16', byteLength: 4, offset: b!.offset + 2 });
  });

  test('parameters are tensors', async () => {
    const parameter = Buffer.concat([
      global('torch._utils', '_rebuild_parameter'),
      pickle({ w: { shape: [2, 3] } }).subarray(4 + text('w').length, -2),
      Buffer.from([0x88, 0x7d, 0x87]),
      Buffer.from('R'),
    ]);
    const data = Buffer.concat([
      Buffer.from([0x80, 2]),
      Buffer.from('}('),
      text('w'),
      parameter,
      Buffer.from('u.'),
    ]);
    expect((await read(withPickle(data))).tensors.get('w')?.shape).toEqual([2, 3]);
  });
});

describe('what a pickle must not do', () => {
  test.each([
    ['os', 'system'],
    ['builtins', 'eval'],
    ['torch', 'load'],
    ['torch._utils', '_rebuild_tensor'],
    ['__builtin__', 'getattr'],
    // Found on every object in JavaScript.
    ['constructor', 'constructor'],
  ])('name %s.%s', async (module, name) => {
    const extra = [text('x'), global(module, name), Buffer.from(')R')];
    const data = pickle({ w: { shape: [2, 3] } }, extra);
    const parts = [`${module}.${name}`, 'it is not run', 'safe_serialization=True'];
    await refused(withPickle(data), 'ADAPTER_UNSUPPORTED', ...parts);
    const stacked = Buffer.concat([text(module), text(name), Buffer.from([0x93])]);
    const other = pickle({ w: { shape: [2, 3] } }, [text('x'), stacked]);
    await refused(withPickle(other), 'ADAPTER_UNSUPPORTED', `${module}.${name}`);
  });

  // INST, OBJ, NEWOBJ, EXT1, PERSID, REDUCE's cousins.
  test.each(['i', 'o', '\x81', '\x82', '\x92', 'P', 'I', 'L', 'S', 'V', '2', '0', '1', '\x8f'])(
    'use opcode %j',
    async (opcode) => {
      const data = pickle({ w: { shape: [2, 3] } }, [text('x'), Buffer.from(opcode, 'latin1')]);
      await refused(withPickle(data), 'ADAPTER_UNSUPPORTED', 'opcode 0x');
    },
  );

  test('call what is no function, or a storage', async () => {
    const call = (what: Buffer) =>
      withPickle(pickle({ w: { shape: [2, 3] } }, [text('x'), what, Buffer.from(')R')]));
    await refused(call(text('os.system')), 'ADAPTER_UNSUPPORTED', 'no function');
    await refused(call(global('torch', 'FloatStorage')), 'ADAPTER_UNSUPPORTED', 'FloatStorage');
  });
});

describe('files that are damaged', () => {
  const whole = torchFile({ a: { shape: [2, 3] }, b: { shape: [4] } });

  test('cut off anywhere', async () => {
    for (let length = 0; length < whole.length; length += 13) {
      await refused(whole.subarray(0, length), 'ADAPTER_INVALID');
    }
  });

  test('with any byte of the pickle changed: an error of ours, or tensors inside the file', async () => {
    const at = whole.indexOf(Buffer.from([0x80, 2, 0x7d]));
    const { length } = pickle({ a: { shape: [2, 3] }, b: { shape: [4] } });
    let [errors, sound] = [0, 0];
    for (let i = at; i < at + length; i++) {
      for (const bit of [1, 0x80]) {
        const bytes = Buffer.from(whole);
        bytes[i]! ^= bit;
        try {
          const { tensors, size } = await read(bytes);
          sound += 1;
          for (const { offset, byteLength } of tensors.values()) {
            expect(offset + byteLength).toBeLessThanOrEqual(size);
          }
        } catch (error) {
          errors += 1;
          expect((error as { code?: string }).code).toMatch(/^ADAPTER_/);
        }
      }
    }
    expect(errors).toBeGreaterThan(length);
    expect(sound).toBeGreaterThan(0);
  });

  test('whose tensors do not lie in their storages', async () => {
    await refused(one({ shape: [3, 3] }), 'ADAPTER_INVALID', 'w: ', 'reaches past');
    await refused(one({ offset: 1 }), 'ADAPTER_INVALID', 'w: ', 'reaches past');
    await refused(one({ elements: 7 }), 'ADAPTER_INVALID', 'w: ', 'reaches past');
    await refused(one({ key: '7' }), 'ADAPTER_INVALID', 'w: its data is missing');
    await refused(one({ offset: -1 }), 'ADAPTER_INVALID');
  });

  test('that are no dict of tensors', async () => {
    const list = Buffer.from([0x80, 2, 0x5d, 0x2e]);
    await refused(withPickle(list), 'ADAPTER_INVALID', 'no dict');
    const number = pickle({}, [text('epoch'), Buffer.from('K\x01', 'latin1')]);
    await refused(withPickle(number), 'ADAPTER_INVALID', 'epoch: is no tensor');
    await refused(Buffer.alloc(0), 'ADAPTER_INVALID', 'no zip');
    await refused(Buffer.from('x'.repeat(100)), 'ADAPTER_INVALID', 'no zip');
  });
});

describe('more than is read here, by name', () => {
  test('transposed tensors', async () => {
    const parts = ['w: ', 'strides [1,2]', 'rows are not together'];
    await refused(one({ strides: [1, 2] }), 'ADAPTER_UNSUPPORTED', ...parts);
  });

  test('compressed entries', async () => {
    const entry = { name: 'adapter_model/data/0', data: Buffer.alloc(24), method: 8 };
    const bytes = torchFile({ w: { shape: [2, 3] } }, [entry]);
    await refused(bytes, 'ADAPTER_UNSUPPORTED', 'data/0 is compressed');
  });

  test('big-endian machines', async () => {
    const entry = { name: 'adapter_model/byteorder', data: Buffer.from('big') };
    const bytes = torchFile({ w: { shape: [2, 3] } }, [entry]);
    await refused(bytes, 'ADAPTER_UNSUPPORTED', 'big-endian');
  });

  test('the format of before torch 1.6', async () => {
    const old = Buffer.from('80028a0a6cfc9c46f9206aa850192e80024de9032e', 'hex');
    await refused(old, 'ADAPTER_UNSUPPORTED', 'before version 1.6');
  });
});
