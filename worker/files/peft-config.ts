/**
 * adapter_config.json of a PEFT LoRA -> the settings that decide ranks, scales and targets.
 *
 * Every field PEFT knows is read, listed as harmless, or refused by name unless it has the value
 * that means "off"; fields unknown here are refused unless empty. Called by peft-adapter.ts.
 */
import { ADAPTER_CODES, ConfigReader, show, type JsonObject } from './config-reader.js';

export interface PeftConfig {
  /** A list of suffixes, or a Python regular expression; 'all-linear' is a name for all. */
  targetModules: string[] | string;
  excludeModules: string[] | string | undefined;
  /** undefined: all layers. */
  layers: ReadonlySet<number> | undefined;
  layersPattern: string[];
  rank: number;
  alpha: number;
  rankPattern: ReadonlyMap<string, number>;
  alphaPattern: ReadonlyMap<string, number>;
  useRslora: boolean;
  /** Activated LoRA: it applies from the last of these in the prompt on. undefined: everywhere. */
  invocationTokens: number[] | undefined;
  useDora: boolean;
  loraBias: boolean;
  /** Names, or last parts of names, of embedding and head, which are trained as a whole. */
  modulesToSave: string[];
  ensureWeightTying: boolean;
  /** For errors about fields. */
  reader: ConfigReader;
}

/** Says where it came from, how it was trained or initialized, how a trainer's memory is used. */
const HARMLESS = new Set([
  'auto_mapping',
  'base_model_name_or_path',
  'revision',
  'peft_version',
  'inference_mode',
  'lora_dropout',
  'megatron_core',
  'runtime_config',
  'qalora_group_size',
  'merge_weights',
  // Of use only with init_lora_weights, which is read.
  'loftq_config',
  'eva_config',
  'corda_config',
  'lora_ga_config',
]);

/** Features that change what the adapter computes, and why each is refused. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  fan_in_fan_out: 'weights stored as (fan_in, fan_out); no supported model has such',
  trainable_token_indices: 'rows of the embedding trained beside the LoRA',
  target_parameters: 'LoRA on bare parameters',
  layer_replication: 'repeated layers of the base model',
  megatron_config: 'Megatron’s parallel layers',
  use_qalora: 'QA-LoRA pools its inputs',
  velora_config: 'VeLoRA',
  monteclora_config: 'Monte Carlo LoRA',
  use_bdlora: 'block-diagonal LoRA',
  arrow_config: 'Arrow routes between adapters',
  kasa_config: 'KaSA changes the base weights',
  enable_lora: 'LoRA on parts of a fused projection',
};

/** Initializations that leave the base weights alone; the others subtract from them. */
const PLAIN_INITIALIZATIONS = [true, false, 'gaussian', 'eva', 'orthogonal', 'mica'];

/** What PEFT applies to the supported families when target_modules is null. */
const DEFAULT_TARGETS = ['q_proj', 'v_proj'];

const isUnset = (value: unknown): boolean =>
  value === null ||
  value === false ||
  value === '' ||
  (Array.isArray(value) && value.length === 0) ||
  (typeof value === 'object' && value !== null && Object.keys(value).length === 0);

export function parsePeftConfig(file: string, values: JsonObject): PeftConfig {
  const reader = new ConfigReader(file, values, ADAPTER_CODES);
  const type = reader.string('peft_type');
  if (type === undefined) throw reader.invalid('peft_type', 'missing; expected "LORA"');
  if (type !== 'LORA') throw reader.unsupported('peft_type', `${show(type)}: only LORA is`);
  for (const [field, why] of Object.entries(UNSUPPORTED)) {
    const value = reader.value(field);
    if (value !== undefined && !isUnset(value)) {
      throw reader.unsupported(field, `${show(value)} is not supported: ${why}`);
    }
  }
  // Of a base without biases nothing is trained; where there are some, their tensors are refused.
  reader.only('bias', ['none', 'all', 'lora_only'], 'PEFT knows no such setting');
  reader.only('task_type', ['CAUSAL_LM'], 'other tasks have heads of their own');
  reader.only(
    'init_lora_weights',
    PLAIN_INITIALIZATIONS,
    'it changes the base weights; convert the adapter to a plain LoRA with PEFT’s ' +
      'save_pretrained(path_initial_model_for_weight_conversion=...)',
  );

  const invocationTokens = readTokens(reader, 'alora_invocation_tokens');
  const invocation = reader.value('alora_invocation_string');
  if (invocationTokens === undefined && invocation !== undefined && !isUnset(invocation)) {
    const field = 'alora_invocation_string';
    throw reader.unsupported(field, `not without its tokens, as alora_invocation_tokens`);
  }
  const targetModules = stringOrList(reader, 'target_modules') ?? DEFAULT_TARGETS;
  const layers = readLayers(reader);
  const layersPattern = [stringOrList(reader, 'layers_pattern') ?? []].flat().filter(Boolean);
  if (typeof targetModules === 'string' && layers !== undefined) {
    throw reader.invalid('layers_to_transform', 'cannot go with a target_modules that is a string');
  }
  if (layersPattern.length > 0 && !reader.has('layers_to_transform')) {
    throw reader.invalid('layers_pattern', 'given without layers_to_transform');
  }
  const config: PeftConfig = {
    targetModules,
    excludeModules: stringOrList(reader, 'exclude_modules'),
    layers,
    layersPattern,
    rank: reader.integer('r', 1) ?? 8,
    alpha: alphaValue(reader, 'lora_alpha', reader.value('lora_alpha') ?? 8),
    rankPattern: readPattern(reader, 'rank_pattern', (inner, key) => inner.requiredInteger(key, 1)),
    alphaPattern: readPattern(reader, 'alpha_pattern', (inner, key) =>
      alphaValue(inner, key, inner.value(key)),
    ),
    useRslora: reader.boolean('use_rslora') ?? false,
    invocationTokens,
    useDora: reader.boolean('use_dora') ?? false,
    loraBias: reader.boolean('lora_bias') ?? false,
    modulesToSave: readModulesToSave(reader),
    ensureWeightTying: reader.boolean('ensure_weight_tying') ?? false,
    reader,
  };
  if (config.useDora && invocationTokens !== undefined) {
    throw reader.invalid('alora_invocation_tokens', 'cannot go with use_dora');
  }
  if (config.useDora && config.loraBias) {
    throw reader.invalid('lora_bias', 'cannot go with use_dora');
  }
  reader.rejectUnread(HARMLESS, isUnset);
  return config;
}

function readModulesToSave(reader: ConfigReader): string[] {
  const names = reader.strings('modules_to_save') ?? [];
  const other = names.find((name) => !/^(.*\.)?(embed_tokens|lm_head)$/.test(name));
  if (other === undefined) return names;
  throw reader.unsupported(
    'modules_to_save',
    `${show(other)} is not supported: embed_tokens and lm_head alone may be trained as a whole`,
  );
}

function stringOrList(reader: ConfigReader, field: string): string | string[] | undefined {
  const value = reader.value(field);
  return typeof value === 'string' ? value : reader.strings(field);
}

function readTokens(reader: ConfigReader, field: string): number[] | undefined {
  const value = reader.value(field);
  if (value === undefined || isUnset(value)) return undefined;
  const isToken = (token: unknown): token is number =>
    Number.isSafeInteger(token) && (token as number) >= 0;
  if (Array.isArray(value) && (value as unknown[]).every(isToken)) return value as number[];
  throw reader.invalid(field, `expected a list of token ids, found ${show(value)}`);
}

/** An empty list is PEFT's "all layers". */
function readLayers(reader: ConfigReader): ReadonlySet<number> | undefined {
  const field = 'layers_to_transform';
  const value = reader.value(field);
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return undefined;
  const layers = Array.isArray(value) ? (value as unknown[]) : [value];
  if (!layers.every((layer): layer is number => Number.isSafeInteger(layer))) {
    throw reader.invalid(field, `expected an integer or a list of integers, found ${show(value)}`);
  }
  return new Set(layers);
}

function alphaValue(reader: ConfigReader, field: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw reader.invalid(field, `expected a number, found ${show(value)}`);
  }
  return value;
}

function readPattern(
  reader: ConfigReader,
  field: string,
  read: (inner: ConfigReader, key: string) => number,
): ReadonlyMap<string, number> {
  const inner = reader.object(field);
  return new Map((inner?.fields() ?? []).map((key) => [key, read(inner as ConfigReader, key)]));
}
