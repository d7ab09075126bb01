/**
 * Requests that are wrong in one way or several, made from a seed: a valid body with something in it
 * replaced, bytes that are no JSON, headers and paths that are none.
 */
export interface Malformed {
  kind: string;
  method: string;
  path: string;
  headers: Record<string, string>;
  body: Buffer | undefined;
  /** Answers in LoRAX's shape. */
  lorax: boolean;
}

type Json = Record<string, unknown>;
/** Numbers in [0, 1), the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = (seed + 0x9e3779b9) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const message = { role: 'user', content: 'Hello' };
const tool = {
  type: 'function',
  function: { name: 'f', parameters: { type: 'object', properties: { a: { type: 'integer' } } } },
};

/** One valid body for each route, with what may be put wrong in it. */
const ROUTES: { path: string; body: Json; fields: string[]; lorax?: boolean }[] = [
  {
    path: '/v1/chat/completions',
    body: { model: 'demo', messages: [message], max_tokens: 1 },
    fields: [
      ...['messages', 'max_tokens', 'temperature', 'top_p', 'top_k', 'min_p', 'n', 'seed', 'stop'],
      ...[
        'logprobs',
        'logit_bias',
        'tools',
        'tool_choice',
        'response_format',
        'stream',
        'priority',
      ],
      ...['guided_json', 'guided_regex', 'guided_choice', 'structured_outputs', 'ignore_eos'],
      ...['repetition_penalty', 'stop_token_ids', 'stream_options', 'chat_template_kwargs'],
    ],
  },
  {
    path: '/v1/completions',
    body: { model: 'demo', prompt: 'Hello', max_tokens: 1 },
    fields: [
      'prompt',
      'max_tokens',
      'best_of',
      'n',
      'echo',
      'logprobs',
      'suffix',
      'frequency_penalty',
    ],
  },
  {
    path: '/v1/embeddings',
    body: { model: 'demo', input: 'Hello' },
    fields: ['input', 'encoding_format', 'dimensions', 'priority'],
  },
  {
    path: '/v1/responses',
    body: { model: 'demo', input: 'Hello', max_output_tokens: 1 },
    fields: [
      'input',
      'instructions',
      'text.format',
      'tools',
      'tool_choice',
      'reasoning.effort',
      'include',
      'stream',
    ],
  },
  { path: '/v1/load_lora_adapter', body: {}, fields: ['lora_name', 'lora_path', 'load_inplace'] },
  { path: '/v1/unload_lora_adapter', body: {}, fields: ['lora_name'] },
  { path: '/detokenize', body: { tokens: [1] }, fields: ['tokens'] },
  {
    path: '/generate',
    body: { inputs: 'Hello', parameters: { max_new_tokens: 1 } },
    fields: ['inputs', 'parameters'],
    lorax: true,
  },
];

const nested = (depth: number): unknown => {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
};

/** None of which any of the fields above can be. */
const NEVER: ((random: () => number) => unknown)[] = [
  (random) => -(2 ** 53) - Math.floor(random() * 1e15),
  () => 1e308,
  () => -1e9,
  () => [[[]]],
  () => [null],
  () => [{ '': '' }],
  () => ({ nothing: { here: [] } }),
  () => [1e20, -1],
  () => ['\ud800', { a: 1 }, 3],
  (random) => nested(2 + Math.floor(random() * 100)),
  () => [{ role: '\u0000' }],
  () => [{ type: 'function', function: { name: '\u202e', parameters: 5 } }],
  () => ({ type: 'json_schema', json_schema: { schema: { type: 'nope' } } }),
  () => ({ __proto__: 1, constructor: { prototype: 1 }, toString: 1 }),
  () => Array.from({ length: 300 }, () => ({ x: 1 })),
];

export function malformedRequest(seed: number): Malformed {
  const random = randomNumbers(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
  const route = pick(ROUTES);
  const base: Malformed = {
    ...{ kind: '', method: 'POST', path: route.path, lorax: route.lorax === true },
    headers: { 'content-type': 'application/json' },
    body: undefined,
  };
  const json = (kind: string, value: unknown): Malformed => {
    return { ...base, kind, body: Buffer.from(JSON.stringify(value)) };
  };
  const roll = random();
  if (roll < 0.5) {
    const field = pick(route.fields);
    const value = pick(NEVER)(random);
    const kind = `${route.path} ${field}`;
    if (route.lorax === true && field === 'parameters') {
      const inner = pick([
        'temperature',
        'top_k',
        'best_of',
        'stop',
        'adapter_id',
        'merged_adapters',
      ]);
      return json(`${kind}.${inner}`, { ...route.body, parameters: { [inner]: value } });
    }
    const [outer = '', inner] = field.split('.');
    return json(kind, { ...route.body, [outer]: inner === undefined ? value : { [inner]: value } });
  }
  const text = JSON.stringify({ ...route.body, tools: [tool] });
  if (roll < 0.65) {
    // Cut, so that it is no JSON any more.
    const cut = 1 + Math.floor(random() * (text.length - 2));
    return { ...base, kind: 'cut', body: Buffer.from(text.slice(0, cut)) };
  }
  if (roll < 0.75) {
    const bytes = Buffer.from(text);
    bytes[1 + Math.floor(random() * (bytes.length - 2))] = 0x80 + Math.floor(random() * 0x7f);
    return { ...base, kind: 'bytes', body: bytes };
  }
  if (roll < 0.8) {
    const depth = 200 + Math.floor(random() * 5000);
    const body = pick(['[', '{"a":']).repeat(depth);
    return { ...base, kind: 'deep', body: Buffer.from(body) };
  }
  if (roll < 0.83) {
    const pad = 'x'.repeat(66_000 + Math.floor(random() * 30_000));
    return json('too large', { ...route.body, pad });
  }
  if (roll < 0.86) return json('no object', pick<unknown>([[], 'x', 5, true, [route.body]]));
  if (roll < 0.9) {
    const headers = pick<Record<string, string>>([
      { 'content-type': 'text/plain' },
      { 'content-type': 'application/json;', 'content-encoding': 'gzip' },
      { 'content-type': 'multipart/form-data; boundary=x' },
      {},
      { 'content-type': 'application/jsonx' },
    ]);
    return { ...json('headers', route.body), headers };
  }
  if (roll < 0.93) {
    const method = pick(['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']);
    return { ...base, kind: 'method', method, lorax: false };
  }
  if (roll < 0.97) {
    const path = pick([
      ...['/v1/nothing', '/v1/models/%00', '/..%2f..%2fetc/passwd', '/v1/models/%ff%fe', '/v2'],
      ...['/v1/chat/completions/', '/?a=b', '/v1//models', `/${'a'.repeat(4000)}`, '/%E0%A4%A'],
    ]);
    return { ...base, kind: `path ${path}`, path, method: 'GET', lorax: false };
  }
  const huge: Record<string, string> = { ...base.headers };
  for (let i = 0; i < 60; i++) huge[`x-${i}-${Math.floor(random() * 1e6)}`] = 'y'.repeat(400);
  return { ...json('many headers', route.body), headers: huge };
}
