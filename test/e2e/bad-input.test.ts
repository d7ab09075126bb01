/**
 * Bad directories and bad requests, as users meet them: on the built package and the real engine.
 *
 * Each case damages a copy of something good and expects a typed error that names file and field;
 * meanwhile another stream runs undisturbed, and afterwards nothing is half loaded.
 */
import { createEngine, LoraxError } from 'lorax-js/engine';
import type { Engine, GenerateRequest } from 'lorax-js/engine';
import {
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exactDevice, testDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const good = join(demo, 'adapters', 'json'); // all seven projections, rank 16
const home = mkdtempSync(join(tmpdir(), 'lorax-bad-input-'));
afterAll(() => rmSync(home, { recursive: true }));

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

/** Rewrites a safetensors file's header and, in place, its data. */
function editTensors(file: string, edit: (header: Header, data: Buffer) => void): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Header;
  const data = bytes.subarray(8 + length);
  edit(header, data);
  const text = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([prefix, text, data]));
}

function editJson(file: string, edit: (config: Record<string, unknown>) => void): void {
  const config = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  edit(config);
  writeFileSync(file, JSON.stringify(config));
}

const tensorNames = (header: Header) => Object.keys(header).filter((key) => key !== '__metadata__');
const firstOf = (header: Header, pattern: RegExp) => {
  const name = tensorNames(header).find((key) => pattern.test(key));
  const tensor = name === undefined ? undefined : header[name];
  if (name === undefined || tensor === undefined) throw new Error(`no tensor like ${pattern}`);
  return { name, tensor };
};

/** Removes one tensor and closes the gap it leaves, so that only its absence is wrong. */
function dropTensor(file: string, pattern: RegExp): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Header;
  const data = bytes.subarray(8 + length);
  const { name } = firstOf(header, pattern);
  const kept: Buffer[] = [];
  const next: Record<string, unknown> = {};
  let offset = 0;
  for (const key of tensorNames(header)) {
    const tensor = header[key];
    if (key === name || tensor === undefined) continue;
    const [from, to] = tensor.data_offsets;
    kept.push(data.subarray(from, to));
    next[key] = { ...tensor, data_offsets: [offset, offset + to - from] };
    offset += to - from;
  }
  const text = Buffer.from(JSON.stringify(next));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(file, Buffer.concat([prefix, text, ...kept]));
}

interface BadDirectory {
  what: string;
  damage: (directory: string) => void;
  code: string;
  /** The message names these. */
  names: RegExp[];
}

const WEIGHTS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
const configured = (changes: Record<string, unknown>) => (directory: string) =>
  editJson(join(directory, CONFIG), (config) => Object.assign(config, changes));

const BAD_ADAPTERS: BadDirectory[] = [
  {
    what: 'no safetensors',
    damage: (directory) => rmSync(join(directory, WEIGHTS)),
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/],
  },
  {
    what: 'truncated safetensors',
    damage: (directory) => truncateSync(join(directory, WEIGHTS), 20_000),
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/],
  },
  {
    what: 'a header longer than the file',
    damage: (directory) => {
      const file = join(directory, WEIGHTS);
      const bytes = readFileSync(file);
      bytes.writeBigUInt64LE(2n ** 40n, 0);
      writeFileSync(file, bytes);
    },
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/, /header/i],
  },
  {
    what: 'offsets that lie',
    damage: (directory) =>
      editTensors(join(directory, WEIGHTS), (header) => {
        const { tensor } = firstOf(header, /lora_A/);
        tensor.data_offsets = [tensor.data_offsets[0] + 2, tensor.data_offsets[1] + 2];
      }),
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/, /lora_A|offset/],
  },
  {
    what: 'a shape that is not its bytes',
    damage: (directory) =>
      editTensors(join(directory, WEIGHTS), (header) => {
        firstOf(header, /q_proj.*lora_A/).tensor.shape[1]! += 1;
      }),
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/, /q_proj.*lora_A/],
  },
  {
    what: 'A without B',
    damage: (directory) => dropTensor(join(directory, WEIGHTS), /layers\.0\..*up_proj.*lora_B/),
    code: 'ADAPTER_INVALID',
    names: [/up_proj/, /lora_B/],
  },
  {
    what: 'NaN weights',
    damage: (directory) =>
      editTensors(join(directory, WEIGHTS), (header, data) => {
        const { tensor } = firstOf(header, /layers\.2\..*down_proj.*lora_B/);
        data.fill(0xff, tensor.data_offsets[0], tensor.data_offsets[0] + 8);
      }),
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/, /layers\.2\..*down_proj.*lora_B/, /NaN/],
  },
  {
    what: 'the adapter of another base',
    damage: (directory) =>
      editTensors(join(directory, WEIGHTS), (header) => {
        // d_in half as large, rank twice: as many bytes, another shape.
        const { tensor } = firstOf(header, /q_proj.*lora_A/);
        tensor.shape = [tensor.shape[0]! * 2, tensor.shape[1]! / 2];
      }),
    code: 'ADAPTER_INVALID',
    names: [/q_proj.*lora_A/, /256/],
  },
  { what: 'rank 0', damage: configured({ r: 0 }), code: 'ADAPTER_INVALID', names: [/\br\b/] },
  {
    what: 'a rank the tensors deny',
    damage: configured({ r: 8 }),
    code: 'ADAPTER_INVALID',
    names: [/rank|\br\b/, /8/, /16/],
  },
  {
    what: 'another PEFT type',
    damage: configured({ peft_type: 'IA3' }),
    code: 'ADAPTER_UNSUPPORTED',
    names: [/peft_type/, /IA3/],
  },
  ...(
    [
      ['aLoRA by its string', { alora_invocation_string: 'Now' }, /alora_invocation_string/],
      ['modules_to_save of a norm', { modules_to_save: ['norm'] }, /modules_to_save/],
      [
        'trained rows of the embedding',
        { trainable_token_indices: [1] },
        /trainable_token_indices/,
      ],
    ] as const
  ).map(([what, changes, named]): BadDirectory => ({
    what,
    damage: configured(changes),
    code: 'ADAPTER_UNSUPPORTED',
    names: [named],
  })),
  ...(
    [
      ['DoRA without magnitudes', { use_dora: true }, /use_dora/],
      ['modules_to_save without the module', { modules_to_save: ['lm_head'] }, /modules_to_save/],
      ['lora_bias without biases', { lora_bias: true }, /lora_bias/],
      ['a head without tensors', { target_modules: ['q_proj', 'lm_head'] }, /target_modules/],
    ] as const
  ).map(([what, changes, named]): BadDirectory => ({
    what,
    damage: configured(changes),
    code: 'ADAPTER_INVALID',
    names: [named],
  })),
  {
    what: 'a target_modules pattern that never ends',
    damage: configured({ target_modules: '((m|mo|mod)*)*(el\\.?)*((l|la|lay)*)*Z' }),
    code: 'ADAPTER_INVALID',
    names: [/target_modules/],
  },
  {
    what: 'weights that are a link out of the directory',
    damage: (directory) => {
      rmSync(join(directory, WEIGHTS));
      symlinkSync(join(good, WEIGHTS), join(directory, WEIGHTS));
    },
    code: 'ADAPTER_INVALID',
    names: [/adapter_model\.safetensors/],
  },
  {
    what: 'a config that is no JSON',
    damage: (directory) => writeFileSync(join(directory, CONFIG), '{"r": 16,'),
    code: 'ADAPTER_INVALID',
    names: [/adapter_config\.json/],
  },
];

const MODEL = 'model.safetensors';
const BAD_MODELS: BadDirectory[] = [
  {
    what: 'no weights',
    damage: (directory) => rmSync(join(directory, MODEL)),
    code: 'MODEL_INVALID',
    names: [/safetensors/],
  },
  {
    what: 'truncated weights',
    damage: (directory) => truncateSync(join(directory, MODEL), 1_000_000),
    code: 'MODEL_INVALID',
    names: [/model\.safetensors/],
  },
  {
    what: 'a tensor less',
    damage: (directory) => dropTensor(join(directory, MODEL), /layers\.1\.mlp\.up_proj/),
    code: 'MODEL_INVALID',
    names: [/layers\.1\.mlp\.up_proj/],
  },
  {
    what: 'NaN weights',
    damage: (directory) =>
      editTensors(join(directory, MODEL), (header, data) => {
        const { tensor } = firstOf(header, /layers\.3\.self_attn\.o_proj/);
        data.fill(0xff, tensor.data_offsets[1] - 4, tensor.data_offsets[1]);
      }),
    code: 'MODEL_INVALID',
    names: [/model\.safetensors/, /layers\.3\.self_attn\.o_proj/, /NaN/],
  },
  {
    what: 'another architecture',
    damage: (directory) =>
      editJson(join(directory, 'config.json'), (config) =>
        Object.assign(config, { architectures: ['MambaForCausalLM'], model_type: 'mamba' }),
      ),
    code: 'MODEL_UNSUPPORTED',
    names: [/Mamba|mamba/],
  },
  {
    what: 'a config field it does not know',
    damage: (directory) =>
      editJson(join(directory, 'config.json'), (config) =>
        Object.assign(config, { attn_logit_softcapping: 30 }),
      ),
    code: 'MODEL_UNSUPPORTED',
    names: [/attn_logit_softcapping/],
  },
  {
    what: 'a head count that does not divide',
    damage: (directory) =>
      editJson(join(directory, 'config.json'), (config) =>
        Object.assign(config, { num_key_value_heads: 3 }),
      ),
    code: 'MODEL_INVALID',
    names: [/num_key_value_heads/],
  },
  {
    what: 'no tokenizer',
    damage: (directory) => rmSync(join(directory, 'tokenizer.json')),
    code: 'MODEL_INVALID',
    names: [/tokenizer\.json/],
  },
];

const failureOf = async (promise: Promise<unknown>): Promise<LoraxError> => {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!LoraxError.isInstance(error)) throw new Error(`expected a LoraxError, got ${String(error)}`);
  return error;
};

async function tokensOf(engine: Engine, request: GenerateRequest): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta') tokens.push(...event.tokenIds);
  }
  return tokens;
}

let copies = 0;
function damagedCopy(of: string, damage: (directory: string) => void): string {
  const directory = join(home, `copy-${copies++}`);
  cpSync(of, directory, { recursive: true, filter: (path) => !path.includes('__pycache__') });
  damage(directory);
  return directory;
}

describe('bad adapters', () => {
  let engine: Engine;
  const witness: GenerateRequest = {
    messages: [{ role: 'user', content: 'Where is my order 4821?' }],
    sampling: { maxOutputTokens: 400, ignoreEos: true, seed: 5, temperature: 1 },
  };
  let expected: number[];

  beforeAll(async () => {
    engine = createEngine({ model: demo, ...exactDevice, memoryBytes: 64 << 20 });
    expected = await tokensOf(engine, witness);
  });
  afterAll(() => engine.dispose());

  it.each(BAD_ADAPTERS)('$what: refused by name; others go on', async ({ damage, code, names }) => {
    const directory = damagedCopy(good, damage);
    const other = tokensOf(engine, witness);
    const error = await failureOf(engine.adapters.add('bad', directory));
    expect(error.code, error.message).toBe(code);
    for (const name of names) expect(error.message).toMatch(name);
    expect(await other).toEqual(expected);
    expect(await engine.adapters.list()).toEqual([]);
    const { code: after } = await failureOf(tokensOf(engine, { ...witness, adapter: 'bad' }));
    expect(after).toBe('ADAPTER_NOT_FOUND');
  });

  it('the good one still loads under that name, and frees what it took', async () => {
    await engine.adapters.add('bad', good);
    const tokens = await tokensOf(engine, { ...witness, adapter: 'bad' });
    expect(tokens).not.toEqual(expected);
    await engine.adapters.remove('bad');
    expect(await tokensOf(engine, witness)).toEqual(expected);
    const { pages } = await engine.stats();
    expect(pages.free + pages.cold).toBe(pages.total);
  });
});

describe('bad models', () => {
  it.each(BAD_MODELS)('$what: refused by name', async ({ damage, code, names }) => {
    const directory = damagedCopy(demo, damage);
    const engine = createEngine({ model: directory, ...testDevice });
    const error = await failureOf(engine.ready());
    expect(error.code, error.message).toBe(code);
    for (const name of names) expect(error.message).toMatch(name);
    const { code: atCall } = await failureOf(tokensOf(engine, { prompt: 'x' }));
    expect(atCall).toBe(code);
    await engine.dispose();
  });
});

describe('bad requests', () => {
  let engine: Engine;
  beforeAll(() => {
    engine = createEngine({ model: demo, ...testDevice, memoryBytes: 4 << 20 });
  });
  afterAll(() => engine.dispose());

  const text = { prompt: 'Hello' };
  const BAD_REQUESTS: [string, unknown, string, RegExp][] = [
    [
      'a negative temperature',
      { ...text, sampling: { temperature: -1 } },
      'INVALID_OPTIONS',
      /temperature/,
    ],
    ['NaN', { ...text, sampling: { topP: NaN } }, 'INVALID_OPTIONS', /topP/],
    ['topK of a half', { ...text, sampling: { topK: 0.5 } }, 'INVALID_OPTIONS', /topK/],
    [
      'a key it does not know',
      { ...text, sampling: { temprature: 1 } },
      'INVALID_OPTIONS',
      /temprature.*temperature/s,
    ],
    ['a request key it does not know', { ...text, adaptor: 'x' }, 'INVALID_OPTIONS', /adaptor/],
    ['two prompts', { ...text, messages: [] }, 'INVALID_OPTIONS', /prompt|messages/],
    ['no prompt', {}, 'INVALID_OPTIONS', /prompt/],
    [
      'a token out of range',
      { promptTokens: [1, 99_999] },
      'INVALID_OPTIONS',
      /promptTokens.*99999/,
    ],
    [
      'a bias out of range',
      { ...text, sampling: { logitBias: { 99999: 1 } } },
      'INVALID_OPTIONS',
      /logitBias/,
    ],
    ['an unknown adapter', { ...text, adapter: 'nobody' }, 'ADAPTER_NOT_FOUND', /nobody/],
    [
      'a maximum beyond the context',
      { ...text, sampling: { maxOutputTokens: 100_000 } },
      'CONTEXT_TOO_LONG',
      /100000.*4096/s,
    ],
    [
      'a maximum beyond the pool',
      { ...text, sampling: { maxOutputTokens: 4000 } },
      'POOL_EXHAUSTED',
      /pages/,
    ],
    [
      'a prompt of 100 MB',
      { prompt: 'a long story. '.repeat(7_500_000) },
      'CONTEXT_TOO_LONG',
      /4096/,
    ],
  ];

  it.each(BAD_REQUESTS)('%s', { timeout: 60_000 }, async (_, request, code, named) => {
    const call = async () => tokensOf(engine, request as GenerateRequest);
    const error = await failureOf(call());
    expect(error.code, error.message).toBe(code);
    expect(error.message).toMatch(named);
    expect(
      await tokensOf(engine, { ...text, sampling: { maxOutputTokens: 3, ignoreEos: true } }),
    ).toHaveLength(3);
  });

  it('names that are no names', () => {
    return Promise.all(
      ['../pirate', 'a/../b', '', '.hidden', 'a\u0000b'].map(async (name) => {
        const error = await failureOf((async () => engine.adapters.add(name, good))());
        expect(error.code).toBe('INVALID_OPTIONS');
      }),
    );
  });
});
