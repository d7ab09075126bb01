// Tiny model and adapter directories on disk, written byte by byte, for tests of worker/files/.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect } from 'vitest';

import { LoraxError, type LoraxErrorCode } from '../../../src/errors.js';
import type { DecoderConfig } from '../../../worker/addon.js';
import { decoderConfig } from '../../../worker/files/decoder-config.js';
import { ConfigReader, MODEL_CODES } from '../../../worker/files/config-reader.js';
import { expectedTensors } from '../../../worker/files/checkpoint.js';

const directories: string[] = [];

/** Removed after the test. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'lorax-files-'));
  directories.push(directory);
  return directory;
}

afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

export interface TensorSpec {
  shape: number[];
  dtype?: string;
}

export type Header = Record<string, unknown>;

const BYTES: Record<string, number> = { F64: 8, F32: 4, F16: 2, BF16: 2, I8: 1, F8_E4M3: 1 };

/** A valid header for the tensors, in order, and the size of their data. */
export function layOut(tensors: Record<string, TensorSpec>): { header: Header; bytes: number } {
  const header: Header = { __metadata__: { format: 'pt' } };
  let bytes = 0;
  for (const [name, { shape, dtype = 'F32' }] of Object.entries(tensors)) {
    const size = shape.reduce((product, n) => product * n, BYTES[dtype] ?? NaN);
    header[name] = { dtype, shape, data_offsets: [bytes, bytes + size] };
    bytes += size;
  }
  return { header, bytes };
}

/** Any header text and any amount of data, true or not. */
export function writeRaw(file: string, header: string, bytes: number, headerBytes?: number): void {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes ?? text.length));
  const data = Buffer.alloc(bytes, 7);
  writeFileSync(file, Buffer.concat([length, text, data]));
}

export function writeSafetensors(file: string, tensors: Record<string, TensorSpec>): void {
  const { header, bytes } = layOut(tensors);
  writeRaw(file, JSON.stringify(header), bytes);
}

export function writeJson(file: string, value: unknown): void {
  writeFileSync(file, JSON.stringify(value));
}

/** What transformers 4 writes for a small Llama. */
export const LLAMA: Readonly<Record<string, unknown>> = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  head_dim: 4,
  hidden_act: 'silu',
  hidden_size: 16,
  initializer_range: 0.02,
  intermediate_size: 24,
  max_position_embeddings: 128,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 4,
  num_hidden_layers: 2,
  num_key_value_heads: 2,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  rope_theta: 10000.0,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  transformers_version: '4.57.1',
  use_cache: true,
  vocab_size: 32,
};

/** `undefined` removes a field. */
export function parse(changes: Record<string, unknown> = {}): DecoderConfig {
  const values = JSON.parse(JSON.stringify({ ...LLAMA, ...changes })) as Record<string, unknown>;
  return decoderConfig(new ConfigReader('/m/config.json', values, MODEL_CODES));
}

export function modelTensors(config: DecoderConfig, dtype = 'BF16'): Record<string, TensorSpec> {
  const specs = [...expectedTensors(config)].map(([name, shape]) => [name, { shape, dtype }]);
  return Object.fromEntries(specs) as Record<string, TensorSpec>;
}

/** The code, and every one of `parts` in the message: the file and the field at fault. */
export async function expectError(
  work: () => unknown,
  code: LoraxErrorCode,
  ...parts: string[]
): Promise<LoraxError> {
  let error: unknown;
  try {
    await work();
  } catch (thrown) {
    error = thrown;
  }
  if (!LoraxError.isInstance(error)) {
    throw new Error(`expected a LoraxError ${code}, got ${String(error)}`);
  }
  expect(error.code, error.message).toBe(code);
  for (const part of parts) expect(error.message).toContain(part);
  return error;
}
