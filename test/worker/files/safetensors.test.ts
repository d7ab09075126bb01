import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { duplicateKey } from '../../../worker/files/duplicate-key.js';
import { readSafetensors } from '../../../worker/files/safetensors.js';
import {
  expectError,
  layOut,
  temporaryDirectory,
  writeRaw,
  writeSafetensors,
  type Header,
} from './fixtures.js';

const file = () => path.join(temporaryDirectory(), 'x.safetensors');

/** Two tensors of 8 and 12 bytes. */
const TWO = { a: { shape: [2] }, b: { shape: [3, 2], dtype: 'F16' } };

/** Writes TWO with its header changed and says how reading it must fail. */
async function expectLie(change: (header: Record<string, Header>) => void, ...parts: string[]) {
  const { header, bytes } = layOut(TWO);
  change(header as Record<string, Header>);
  const at = file();
  writeRaw(at, JSON.stringify(header), bytes);
  await expectError(() => readSafetensors(at, 'MODEL_INVALID'), 'MODEL_INVALID', at, ...parts);
}

describe('a truthful file', () => {
  test('gives every tensor with its place in the file', async () => {
    const at = file();
    writeSafetensors(at, TWO);
    const { tensors, size } = await readSafetensors(at, 'MODEL_INVALID');
    const a = tensors.get('a');
    expect([...tensors.keys()]).toEqual(['a', 'b']);
    expect(a).toMatchObject({ dtype: 'F32', shape: [2], byteLength: 8, offset: size - 20 });
    expect(tensors.get('b')).toMatchObject({ shape: [3, 2], byteLength: 12, offset: size - 12 });
  });

  test('may pad its header, hold scalars and empty tensors, and order them freely', async () => {
    const at = file();
    const header = {
      late: { dtype: 'F32', shape: [], data_offsets: [4, 8] },
      empty: { dtype: 'F32', shape: [0, 9], data_offsets: [4, 4] },
      early: { dtype: 'I8', shape: [4], data_offsets: [0, 4] },
    };
    writeRaw(at, `${JSON.stringify(header)}   `, 8);
    const { tensors } = await readSafetensors(at, 'MODEL_INVALID');
    expect(tensors.size).toBe(3);
    expect(tensors.get('late')?.offset).toBe((tensors.get('early')?.offset ?? 0) + 4);
  });

  test('counts bytes, not characters, of a header with other scripts', async () => {
    const at = file();
    writeSafetensors(at, { 'größe.重み': { shape: [2] } });
    const { tensors, size } = await readSafetensors(at, 'MODEL_INVALID');
    expect(tensors.get('größe.重み')?.offset).toBe(size - 8);
  });
});

describe('a header that lies', () => {
  test.each<[string, (h: Record<string, Header>) => void, string]>([
    ['offsets past the end', (h) => (h['b']!['data_offsets'] = [8, 24]), 'reach past'],
    ['offsets backwards', (h) => (h['b']!['data_offsets'] = [20, 8]), 'backwards'],
    ['negative offsets', (h) => (h['b']!['data_offsets'] = [-4, 8]), 'not a pair'],
    ['fractional offsets', (h) => (h['b']!['data_offsets'] = [8.5, 20]), 'not a pair'],
    ['three offsets', (h) => (h['b']!['data_offsets'] = [8, 20, 20]), 'not a pair'],
    ['no offsets', (h) => delete h['b']!['data_offsets'], 'not a pair'],
    ['a negative size', (h) => (h['b']!['shape'] = [-3, -2]), 'not a list of sizes'],
    ['a shape that is no list', (h) => (h['b']!['shape'] = 6), 'not a list of sizes'],
    ['too many elements', (h) => (h['b']!['shape'] = [3, 3]), 'needs 18 bytes'],
    ['sizes that overflow', (h) => (h['b']!['shape'] = [2 ** 52, 2 ** 52]), 'needs'],
    ['another dtype', (h) => (h['b']!['dtype'] = 'F32'), 'needs 24 bytes'],
    ['an unknown dtype', (h) => (h['b']!['dtype'] = 'F13'), 'unknown dtype "F13"'],
    ['a dtype of Object.prototype', (h) => (h['b']!['dtype'] = 'valueOf'), 'unknown dtype'],
    ['an entry that is no object', (h) => (h['b'] = 3 as unknown as Header), 'expected an object'],
  ])('%s', (_name, change, part) => expectLie(change, 'b: ', part));

  test('overlapping tensors', () =>
    expectLie((h) => (h['b'] = { ...h['a'] }), 'b: overlaps another tensor'));

  test('a hole between tensors', async () => {
    const at = file();
    const header = {
      a: { dtype: 'I8', shape: [4], data_offsets: [0, 4] },
      b: { dtype: 'I8', shape: [4], data_offsets: [6, 10] },
    };
    writeRaw(at, JSON.stringify(header), 10);
    const read = () => readSafetensors(at, 'MODEL_INVALID');
    await expectError(read, 'MODEL_INVALID', 'b: 2 bytes before it');
  });

  test('bytes after the last tensor', () =>
    expectLie((h) => delete h['b'], 'the last 12 bytes belong to no tensor'));

  test('metadata that is not text', () =>
    expectLie((h) => (h['__metadata__'] = { format: 3 }), '__metadata__'));

  test('the same tensor twice', async () => {
    const at = file();
    const entry = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';
    writeRaw(at, `{"a":${entry},"\\u0061":${entry}}`, 8);
    const read = () => readSafetensors(at, 'MODEL_INVALID');
    await expectError(read, 'MODEL_INVALID', at, 'a: appears twice');
  });
});

describe('a broken file', () => {
  test.each<[string, string, number | undefined, string]>([
    ['header length beyond the file', '{}', 1000, 'claims 1000 bytes'],
    ['header that is not JSON', '{"a":', undefined, 'not valid JSON'],
    ['header that is a list', '[]', undefined, 'not a JSON object'],
    ['absurd header length', '{}', Number.MAX_SAFE_INTEGER, 'truncated'],
  ])('%s', async (_name, header, headerBytes, part) => {
    const at = file();
    writeRaw(at, header, 0, headerBytes);
    await expectError(() => readSafetensors(at, 'ADAPTER_INVALID'), 'ADAPTER_INVALID', at, part);
  });

  test('a length with the highest bit set', async () => {
    const at = file();
    writeFileSync(at, Buffer.alloc(16, 0xff));
    await expectError(() => readSafetensors(at, 'MODEL_INVALID'), 'MODEL_INVALID', 'claims');
  });

  test('a header that is not UTF-8', async () => {
    const at = file();
    const length = Buffer.from([3, 0, 0, 0, 0, 0, 0, 0]);
    writeFileSync(at, Buffer.concat([length, Buffer.from([0x7b, 0xff, 0x7d])]));
    await expectError(() => readSafetensors(at, 'MODEL_INVALID'), 'MODEL_INVALID', 'UTF-8');
  });

  test('cut at every length', async () => {
    const at = file();
    writeSafetensors(at, TWO);
    const { size } = await readSafetensors(at, 'MODEL_INVALID');
    for (let length = size - 1; length >= 0; length -= 3) {
      truncateSync(at, length);
      await expectError(() => readSafetensors(at, 'MODEL_INVALID'), 'MODEL_INVALID', at);
    }
  });

  test('absent, or a directory', async () => {
    const at = file();
    await expectError(() => readSafetensors(at, 'MODEL_INVALID'), 'MODEL_INVALID', 'no such file');
    const directory = path.dirname(at);
    await expectError(() => readSafetensors(directory, 'MODEL_INVALID'), 'MODEL_INVALID');
  });
});

test.each([
  ['{"a":1,"b":{"a":2},"c":["a","a",{"a":3}]}', undefined],
  ['{"a":"a","b":"a,\\"a\\":"}', undefined],
  ['{"a":1,"b":{"c":1,"d":[1,2],"c":2}}', 'c'],
  ['{"a":[{"x":1},{"x":2}],"a":0}', 'a'],
  ['{ "\\\\" : 1 , "\\\\" : 2 }', '\\'],
])('duplicate key of %s is %s', (json, key) => {
  expect(duplicateKey(json)).toBe(key);
});
