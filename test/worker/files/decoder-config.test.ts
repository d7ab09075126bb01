import { describe, expect, test } from 'vitest';

import { expectError, parse } from './fixtures.js';

const MISTRAL = { architectures: ['MistralForCausalLM'], model_type: 'mistral' };
const QWEN2 = { architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', head_dim: undefined };
const QWEN3 = { architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3' };

describe('families', () => {
  test('Llama', () => {
    expect(parse()).toEqual({
      architecture: 'LlamaForCausalLM',
      vocabSize: 32,
      hiddenSize: 16,
      intermediateSize: 24,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 4,
      rmsNormEps: 1e-5,
      contextTokens: 128,
      tiedEmbeddings: false,
      qkvBias: false,
      qkNorm: false,
      slidingWindow: 0,
      ropeTheta: 10000,
      rope: { type: 'default' },
    });
  });

  test('Llama 2 leaves out head_dim, kv heads and theta', () => {
    const config = parse({
      head_dim: undefined,
      num_key_value_heads: undefined,
      rope_theta: undefined,
      rms_norm_eps: undefined,
      architectures: undefined,
    });
    expect(config).toMatchObject({
      architecture: 'LlamaForCausalLM',
      headDim: 4,
      numKvHeads: 4,
      ropeTheta: 10000,
      rmsNormEps: 1e-6,
    });
  });

  test('SmolLM2 is a tied Llama with notes of its own', () => {
    const config = parse({
      is_llama_config: true,
      rope_interleaved: false,
      tie_word_embeddings: true,
      'transformers.js_config': { dtype: 'q4' },
    });
    expect(config.tiedEmbeddings).toBe(true);
  });

  test('Mistral slides in all layers; left out is 4096, null is full attention', () => {
    expect(parse({ ...MISTRAL, sliding_window: 64 }).slidingWindow).toBe(64);
    expect(parse({ ...MISTRAL, sliding_window: null }).slidingWindow).toBe(0);
    expect(parse(MISTRAL).slidingWindow).toBe(4096);
  });

  test('Qwen2 has qkv biases', () => {
    const fields = { use_sliding_window: false, sliding_window: 64, max_window_layers: 1 };
    expect(parse({ ...QWEN2, ...fields, attention_bias: undefined })).toMatchObject({
      qkvBias: true,
      qkNorm: false,
      headDim: 4,
      slidingWindow: 0,
    });
  });

  test('Qwen3 has q/k norms and a head_dim of its own', () => {
    expect(parse({ ...QWEN3, head_dim: 8 })).toMatchObject({ qkNorm: true, headDim: 8 });
    expect(parse({ ...QWEN3, head_dim: undefined }).headDim).toBe(128);
  });
});

describe('sliding windows by layer', () => {
  const on = { ...QWEN3, use_sliding_window: true, sliding_window: 32 };
  test('max_window_layers', async () => {
    expect(parse({ ...on, max_window_layers: 0 }).slidingWindow).toBe(32);
    expect(parse({ ...on, max_window_layers: 2 }).slidingWindow).toBe(0);
    const mixed = () => parse({ ...on, max_window_layers: 1 });
    await expectError(mixed, 'MODEL_UNSUPPORTED', 'max_window_layers', 'config.json');
  });

  test('layer_types', async () => {
    const full = ['full_attention', 'full_attention'];
    const sliding = ['sliding_attention', 'sliding_attention'];
    expect(parse({ layer_types: full }).slidingWindow).toBe(0);
    expect(parse({ ...QWEN3, layer_types: full, sliding_window: 32 }).slidingWindow).toBe(0);
    expect(parse({ ...on, layer_types: sliding }).slidingWindow).toBe(32);
    await expectError(
      () => parse({ ...on, layer_types: ['full_attention', 'sliding_attention'] }),
      'MODEL_UNSUPPORTED',
      'layer_types',
      'mix',
    );
    await expectError(
      () => parse({ layer_types: ['full_attention'] }),
      'MODEL_INVALID',
      '1 entries',
    );
    await expectError(() => parse({ layer_types: sliding }), 'MODEL_UNSUPPORTED', 'llama has no');
    const unused = { ...on, use_sliding_window: false, layer_types: sliding };
    await expectError(() => parse(unused), 'MODEL_INVALID', 'layer_types');
  });
});

describe('rope', () => {
  const LLAMA3 = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
    rope_type: 'llama3',
  };

  test('llama3', () => {
    const config = parse({ rope_scaling: LLAMA3, rope_theta: 500000 });
    expect(config.ropeTheta).toBe(500000);
    expect(config.rope).toEqual({
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContext: 64,
    });
  });

  test('rope_parameters of transformers 5 says the same', () => {
    const older = parse({ rope_scaling: LLAMA3, rope_theta: 500000 });
    const newer = parse({
      rope_scaling: undefined,
      rope_theta: undefined,
      rope_parameters: { ...LLAMA3, rope_theta: 500000 },
      dtype: 'bfloat16',
      torch_dtype: undefined,
    });
    expect(newer).toEqual(older);
    const plain = { rope_theta: 500000, rope_type: 'default' };
    const changes = { rope_scaling: undefined, rope_theta: undefined, rope_parameters: plain };
    expect(parse(changes)).toMatchObject({ ropeTheta: 500000, rope: { type: 'default' } });
  });

  test('linear, in the oldest spelling', () => {
    const config = parse({ rope_scaling: { type: 'linear', factor: 2.5 } });
    expect(config.rope).toEqual({ type: 'linear', factor: 2.5 });
    expect(config.contextTokens).toBe(128);
  });

  test('dynamic stretches the context, where its base will be frozen', () => {
    const config = parse({ rope_scaling: { type: 'dynamic', factor: 4 } });
    expect(config.rope).toEqual({ type: 'dynamic', factor: 4, originalContext: 128 });
    expect(config).toMatchObject({ contextTokens: 512, ropeTheta: 10000 });
  });

  test('yarn, with attention factor derived as its paper says', () => {
    const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128 };
    const config = parse({ rope_scaling: yarn });
    expect(config.rope).toEqual({
      type: 'yarn',
      factor: 4,
      originalContext: 128,
      betaFast: 32,
      betaSlow: 1,
      attentionFactor: expect.closeTo(0.1 * Math.log(4) + 1, 12) as number,
      truncate: true,
    });
    expect(config.contextTokens).toBe(512);
  });

  test('yarn, everything given', () => {
    const yarn = {
      rope_type: 'yarn',
      factor: 2,
      original_max_position_embeddings: 32,
      attention_factor: 1.5,
      beta_fast: 16,
      beta_slow: 2,
      truncate: false,
    };
    const config = parse({ rope_scaling: yarn });
    expect(config.rope).toMatchObject({
      originalContext: 32,
      betaFast: 16,
      betaSlow: 2,
      attentionFactor: 1.5,
      truncate: false,
    });
    expect(config.contextTokens).toBe(128);
    const scaled = parse({
      rope_scaling: { ...yarn, attention_factor: null, mscale: 0.5, mscale_all_dim: 2 },
    });
    const expected = (0.05 * Math.log(2) + 1) / (0.2 * Math.log(2) + 1);
    expect(scaled.rope).toMatchObject({ attentionFactor: expect.closeTo(expected, 12) as number });
  });

  test.each<[string, Record<string, unknown>, 'MODEL_INVALID' | 'MODEL_UNSUPPORTED', string]>([
    ['longrope', { type: 'longrope' }, 'MODEL_UNSUPPORTED', 'rope_scaling.type'],
    ['mrope', { rope_type: 'mrope' }, 'MODEL_UNSUPPORTED', 'rope_scaling.rope_type'],
    ['two types', { rope_type: 'yarn', type: 'linear' }, 'MODEL_INVALID', 'rope_scaling.type'],
    ['no factor', { type: 'linear' }, 'MODEL_INVALID', 'rope_scaling.factor'],
    ['factor below 1', { type: 'linear', factor: 0.5 }, 'MODEL_INVALID', 'rope_scaling.factor'],
    ['text as factor', { type: 'linear', factor: '2' }, 'MODEL_INVALID', 'rope_scaling.factor'],
    [
      'unknown key',
      { type: 'linear', factor: 2, mystery: 1 },
      'MODEL_UNSUPPORTED',
      'rope_scaling.mystery',
    ],
    [
      'half the head',
      { type: 'linear', factor: 2, partial_rotary_factor: 0.5 },
      'MODEL_UNSUPPORTED',
      'rope_scaling.partial_rotary_factor',
    ],
    [
      'low above high',
      { ...LLAMA3, low_freq_factor: 5 },
      'MODEL_INVALID',
      'rope_scaling.high_freq_factor',
    ],
    ['other theta', { rope_type: 'default', rope_theta: 5 }, 'MODEL_INVALID', 'rope_theta'],
  ])('%s is refused by name', async (_name, scaling, code, field) => {
    await expectError(() => parse({ rope_scaling: scaling }), code, field, '/m/config.json');
  });

  test('both spellings at once are refused', async () => {
    const both = { rope_scaling: LLAMA3, rope_parameters: LLAMA3 };
    await expectError(() => parse(both), 'MODEL_INVALID', 'rope_parameters');
  });
});

describe('refused by name', () => {
  test.each<[string, unknown]>([
    ['quantization_config', { quant_method: 'gptq' }],
    ['auto_map', { AutoModel: 'modeling_x.X' }],
    ['hidden_act', 'gelu'],
    ['mlp_bias', true],
    ['attention_bias', true],
    ['partial_rotary_factor', 0.5],
    ['pretraining_tp', 2],
    ['rope_interleaved', true],
    ['sliding_window', 64],
    ['logit_scale', 0.5],
    ['final_logit_softcapping', 30],
    ['num_experts', 8],
    ['is_encoder_decoder', true],
    ['architectures', ['GemmaForCausalLM']],
    ['architectures', ['constructor']],
    ['architectures', []],
    ['model_type', 'gemma'],
  ])('%s: %j', async (field, value) => {
    const error = await expectError(
      () => parse({ [field]: value }),
      'MODEL_UNSUPPORTED',
      field,
      '/m/config.json',
    );
    expect(error.data).toEqual({ file: '/m/config.json', field });
  });

  test.each<[string, unknown]>([
    ['vocab_size', undefined],
    ['vocab_size', -1],
    ['vocab_size', 1.5],
    ['hidden_size', '16'],
    ['num_hidden_layers', 0],
    ['num_attention_heads', undefined],
    ['num_key_value_heads', 3],
    ['head_dim', 3],
    ['max_position_embeddings', undefined],
    ['rms_norm_eps', 0],
    ['tie_word_embeddings', 'yes'],
    ['rope_theta', -1],
    ['rope_scaling', 'linear'],
  ])('invalid %s: %j', async (field, value) => {
    await expectError(() => parse({ [field]: value }), 'MODEL_INVALID', field);
  });
});
