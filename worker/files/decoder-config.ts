/**
 * config.json -> DecoderConfig: the flat numbers the one native decoder runs on.
 *
 * A field is read here, or listed as harmless with its kind, or the model is refused with the
 * field's name: nothing a model's author wrote is ignored by accident. Defaults are those of
 * transformers, where files leave fields out. Called by checkpoint.ts.
 */
import path from 'node:path';

import type { DecoderConfig } from '../addon.js';
import { ConfigReader, MODEL_CODES, readJsonObject, show } from './config-reader.js';
import { readRope } from './rope-config.js';

/** What differs between the families; everything else is a field of the file. */
interface Family {
  modelType: string;
  qkvBias: boolean;
  qkNorm: boolean;
  /** transformers' default where the file has no head_dim; undefined: hidden_size / heads. */
  headDim?: number;
  /** transformers' default where the file has no num_key_value_heads; undefined: all heads. */
  numKvHeads?: number;
  sliding: 'none' | 'all-layers' | 'by-flag';
}

const FAMILIES: Readonly<Record<string, Family>> = {
  // SmolLM2 is a Llama by architecture as well.
  LlamaForCausalLM: { modelType: 'llama', qkvBias: false, qkNorm: false, sliding: 'none' },
  MistralForCausalLM: {
    modelType: 'mistral',
    qkvBias: false,
    qkNorm: false,
    numKvHeads: 8,
    sliding: 'all-layers',
  },
  Qwen2ForCausalLM: { modelType: 'qwen2', qkvBias: true, qkNorm: false, sliding: 'by-flag' },
  Qwen3ForCausalLM: {
    modelType: 'qwen3',
    qkvBias: false,
    qkNorm: true,
    headDim: 128,
    sliding: 'by-flag',
  },
};

/** Fields that cannot change a logit of an unquantized decoder at inference. */
const HARMLESS = new Set([
  // Where it came from, what wrote it.
  '_name_or_path',
  'name_or_path',
  'transformers_version',
  'transformers.js_config',
  'unsloth_fixed',
  'unsloth_version',
  'is_llama_config',
  'finetuning_task',
  'task_specific_params',
  'tokenizer_class',
  // Ids: read from here by generation-defaults.ts, or by the tokenizer's own files.
  'bos_token_id',
  'eos_token_id',
  'pad_token_id',
  'sep_token_id',
  'decoder_start_token_id',
  // Types of the stored weights: the files themselves say.
  'torch_dtype',
  'dtype',
  // Sampling and lengths, from before there was a generation_config.json.
  'do_sample',
  'temperature',
  'top_k',
  'top_p',
  'max_length',
  'max_sequence_length',
  // Training, dropout (off at inference), output shapes, caches, kernels.
  'initializer_range',
  'attention_dropout',
  'use_cache',
  'cache_implementation',
  '_attn_implementation',
  '_attn_implementation_autoset',
  'attn_implementation',
  '_flash_attn_2_enabled',
  'use_flash_attn',
  'output_attentions',
  'output_hidden_states',
  'output_scores',
  'return_dict',
  'return_dict_in_generate',
  'torchscript',
  'gradient_checkpointing',
  'problem_type',
  'id2label',
  'label2id',
  // Of use only together with use_sliding_window or layer_types, which are read.
  'max_window_layers',
]);

/** Defaults that older transformers wrote out, of features a decoder does not use. */
const isUnset = (value: unknown): boolean =>
  value === null ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (typeof value === 'object' && value !== null && Object.keys(value).length === 0);

export async function readDecoderConfig(directory: string): Promise<DecoderConfig> {
  const file = path.join(directory, 'config.json');
  const values = await readJsonObject(file, MODEL_CODES);
  return decoderConfig(new ConfigReader(file, values, MODEL_CODES));
}

export function decoderConfig(config: ConfigReader): DecoderConfig {
  const { architecture, family } = readFamily(config);
  rejectFeatures(config, family);

  const hiddenSize = config.requiredInteger('hidden_size', 1);
  const numHeads = config.requiredInteger('num_attention_heads', 1);
  const numKvHeads = config.integer('num_key_value_heads', 1) ?? family.numKvHeads ?? numHeads;
  if (numHeads % numKvHeads !== 0) {
    throw config.invalid(
      'num_key_value_heads',
      `${numKvHeads} does not divide num_attention_heads ${numHeads}`,
    );
  }
  const headDim = config.integer('head_dim', 2) ?? family.headDim ?? hiddenSize / numHeads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw config.invalid('head_dim', `expected an even integer, found ${headDim}`);
  }
  const numLayers = config.requiredInteger('num_hidden_layers', 1);
  const maxPositions = config.requiredInteger('max_position_embeddings', 1);
  const { ropeTheta, rope, contextTokens } = readRope(config, maxPositions);

  const result: DecoderConfig = {
    architecture,
    vocabSize: config.requiredInteger('vocab_size', 1),
    hiddenSize,
    intermediateSize: config.requiredInteger('intermediate_size', 1),
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    rmsNormEps: config.positive('rms_norm_eps') ?? 1e-6,
    contextTokens,
    tiedEmbeddings: config.boolean('tie_word_embeddings') ?? false,
    qkvBias: family.qkvBias,
    qkNorm: family.qkNorm,
    slidingWindow: readSlidingWindow(config, family, numLayers),
    ropeTheta,
    rope,
  };
  config.rejectUnread(HARMLESS, isUnset);
  return result;
}

function readFamily(config: ConfigReader): { architecture: string; family: Family } {
  const supported = Object.keys(FAMILIES).join(', ');
  const names = config.strings('architectures');
  const modelType = config.string('model_type');
  if (names !== undefined && names.length !== 1) {
    throw config.unsupported('architectures', `expected one name, found ${show(names)}`);
  }
  const architecture =
    names?.[0] ?? Object.keys(FAMILIES).find((name) => FAMILIES[name]?.modelType === modelType);
  if (architecture === undefined) {
    const field = modelType === undefined ? 'architectures' : 'model_type';
    throw config.unsupported(field, `${show(modelType)}: supported are ${supported}`);
  }
  const family = Object.hasOwn(FAMILIES, architecture) ? FAMILIES[architecture] : undefined;
  if (family === undefined) {
    throw config.unsupported('architectures', `${architecture}: supported are ${supported}`);
  }
  if (modelType !== undefined && modelType !== family.modelType) {
    throw config.unsupported('model_type', `${show(modelType)} with architecture ${architecture}`);
  }
  return { architecture, family };
}

/** Known features of these families that the decoder lacks, each refused by name. */
function rejectFeatures(config: ConfigReader, family: Family): void {
  if (config.has('quantization_config')) {
    const method = config.object('quantization_config')?.value('quant_method');
    throw config.unsupported(
      'quantization_config',
      `quantized checkpoints (${show(method)}) are not supported: use one in bf16, f16 or f32`,
    );
  }
  if (config.has('auto_map')) {
    throw config.unsupported('auto_map', 'models with Python code of their own are not supported');
  }
  config.only('hidden_act', ['silu', 'swish'], 'the MLP is SiLU-gated');
  config.only('mlp_bias', [false], 'the MLP has no biases');
  // Qwen2 always has q, k and v biases, and its implementation reads no such field.
  const biases = family.qkvBias ? [true] : [false];
  config.only('attention_bias', biases, `${family.modelType} is supported with ${biases[0]} only`);
  config.only('qkv_bias', [family.qkvBias], `${family.modelType} has ${family.qkvBias}`);
  config.only('pretraining_tp', [0, 1], 'only 1');
  config.only('partial_rotary_factor', [1], 'rotary embeddings cover whole heads');
  config.only('rope_interleaved', [false], 'rotary pairs are the two halves of a head');
  config.only('use_mrope', [false], 'positions have one dimension');
  config.only('is_decoder', [true, false], 'only decoders');
  config.only('is_encoder_decoder', [false], 'only decoders');
  config.only('add_cross_attention', [false], 'only decoders');
  config.only('chunk_size_feed_forward', [0], 'only 0');
}

/** Tokens a position attends to, itself included; 0 = all. */
function readSlidingWindow(config: ConfigReader, family: Family, numLayers: number): number {
  const layerTypes = config.strings('layer_types');
  if (layerTypes !== undefined) return windowByLayerTypes(config, family, layerTypes, numLayers);

  switch (family.sliding) {
    case 'none':
      if (config.integer('sliding_window', 0)) {
        throw config.unsupported('sliding_window', `${family.modelType} has none`);
      }
      config.only('use_sliding_window', [false], `${family.modelType} has none`);
      return 0;
    case 'all-layers':
      // Left out is transformers' default; null is full attention.
      if (config.raw('sliding_window') === undefined) return 4096;
      return config.integer('sliding_window', 1) ?? 0;
    case 'by-flag': {
      const window = config.integer('sliding_window', 1) ?? 0;
      if (!(config.boolean('use_sliding_window') ?? false) || window === 0) return 0;
      // Layers from max_window_layers on slide.
      const firstSliding = config.integer('max_window_layers', 0) ?? 28;
      if (firstSliding >= numLayers) return 0;
      if (firstSliding === 0) return window;
      throw config.unsupported(
        'max_window_layers',
        `${firstSliding} of ${numLayers} layers with full attention and the rest sliding: ` +
          'all layers must be of one kind',
      );
    }
  }
}

function windowByLayerTypes(
  config: ConfigReader,
  family: Family,
  layerTypes: string[],
  numLayers: number,
): number {
  const window = config.integer('sliding_window', 0) ?? 0;
  const enabled = config.boolean('use_sliding_window');
  if (layerTypes.length !== numLayers) {
    throw config.invalid(
      'layer_types',
      `${layerTypes.length} entries for num_hidden_layers ${numLayers}`,
    );
  }
  const kinds = [...new Set(layerTypes)];
  if (kinds.length !== 1) {
    throw config.unsupported(
      'layer_types',
      `a mix of ${kinds.join(', ')}: all layers must be of one kind`,
    );
  }
  if (kinds[0] === 'full_attention') {
    if (family.sliding === 'all-layers' && window > 0) {
      // transformers' Mistral reads sliding_window alone, so the two fields disagree.
      throw config.invalid('layer_types', `full_attention with sliding_window ${window}`);
    }
    return 0;
  }
  if (kinds[0] !== 'sliding_attention') {
    throw config.unsupported('layer_types', `${show(kinds[0])} is not supported`);
  }
  if (family.sliding === 'none') {
    throw config.unsupported('layer_types', `${family.modelType} has no sliding window`);
  }
  if (window === 0 || enabled === false) {
    throw config.invalid('layer_types', 'sliding_attention without a sliding_window in use');
  }
  return window;
}
