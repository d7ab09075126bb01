/**
 * Which projections a PEFT configuration targets, with which rank and scale: PEFT's own matching
 * rules applied to the module names of the supported decoders. Called by peft-adapter.ts.
 */
import { MODULES, type DecoderConfig } from '../addon.js';
import type { PeftConfig } from './peft-config.js';
import { PythonRegexError, firstMatches, fullMatches } from './python-regex.js';

export interface Projection {
  /** As PEFT sees it: "model.layers.0.self_attn.q_proj". */
  name: string;
  layer: number;
  /** Index into MODULES. */
  module: number;
  inputSize: number;
  outputSize: number;
}

export interface Target extends Projection {
  rank: number;
  /** alpha / r, or alpha / sqrt(r). */
  scale: number;
}

/** What is there once, in the order of MODULES; an adapter may hold all of it. */
const WHOLE_MODULES = ['lm_head', 'model.embed_tokens'];
export const isWholeModule = (name: string) => WHOLE_MODULES.includes(name);
/** Its input is a token. */
export const isTable = (name: string) => name === 'model.embed_tokens';

/** All that may be adapted, by name: seven projections of all layers, head and embedding. */
export function projections(config: DecoderConfig): Map<string, Projection> {
  const { hiddenSize, intermediateSize } = config;
  const q = config.numHeads * config.headDim;
  const kv = config.numKvHeads * config.headDim;
  // In the order of MODULES: [d_in, d_out].
  const sizes = [
    [hiddenSize, q],
    [hiddenSize, kv],
    [hiddenSize, kv],
    [q, hiddenSize],
    [hiddenSize, intermediateSize],
    [hiddenSize, intermediateSize],
    [intermediateSize, hiddenSize],
  ] as const;
  const all = new Map<string, Projection>();
  for (let layer = 0; layer < config.numLayers; layer++) {
    sizes.forEach(([inputSize, outputSize], module) => {
      const block = module < 4 ? 'self_attn' : 'mlp';
      const name = `model.layers.${layer}.${block}.${MODULES[module]}`;
      all.set(name, { name, layer, module, inputSize, outputSize });
    });
  }
  WHOLE_MODULES.forEach((name, i) => {
    const [inputSize, outputSize] = isTable(name)
      ? [config.vocabSize, hiddenSize]
      : [hiddenSize, config.vocabSize];
    all.set(name, { name, layer: 0, module: sizes.length + i, inputSize, outputSize });
  });
  return all;
}

/** Every module that the configuration wants a LoRA on. */
export function targets(
  peft: PeftConfig,
  all: ReadonlyMap<string, Projection>,
  tiedEmbeddings: boolean,
): Target[] {
  const names = [...all.keys()];
  const excluded = matchesNames(peft, 'exclude_modules', peft.excludeModules ?? [], names);
  const targeted = isTargeted(peft, names);
  const chosen = names.filter((_, i) => targeted[i] && !excluded[i]);
  // With tied weights PEFT then ties their adapters, and saves both.
  if (peft.ensureWeightTying && tiedEmbeddings && chosen.some(isWholeModule)) {
    chosen.push(...WHOLE_MODULES.filter((name) => !chosen.includes(name)));
  }
  if (chosen.length === 0) {
    throw peft.reader.invalid('target_modules', 'matches none of the base model’s projections');
  }
  const ranks = fromPattern(peft, 'rank_pattern', peft.rankPattern, chosen, peft.rank);
  const alphas = fromPattern(peft, 'alpha_pattern', peft.alphaPattern, chosen, peft.alpha);
  return chosen.map((name, i) => {
    const rank = ranks[i] as number;
    const scale = (alphas[i] as number) / (peft.useRslora ? Math.sqrt(rank) : rank);
    return { ...(all.get(name) as Projection), rank, scale };
  });
}

function isTargeted(peft: PeftConfig, names: string[]): boolean[] {
  const { targetModules } = peft;
  if (typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear') {
    return names.map((name) => !WHOLE_MODULES.includes(name));
  }
  const matched = matchesNames(peft, 'target_modules', targetModules, names);
  if (peft.layers === undefined) return matched;
  const inLayers = isInLayers(peft, peft.layers, names);
  // A module given by its full name is taken whatever its layer.
  return names.map((name, i) =>
    Boolean(matched[i] && (inLayers[i] || targetModules.includes(name))),
  );
}

/** A string is a regular expression for the whole name; a list holds names or their last parts. */
function matchesNames(
  peft: PeftConfig,
  field: string,
  wanted: string[] | string,
  names: string[],
): boolean[] {
  if (typeof wanted === 'string') {
    if (wanted === '') return names.map(() => false);
    return withField(peft, field, () => fullMatches(wanted, names));
  }
  return names.map((name) => wanted.some((each) => name === each || name.endsWith(`.${each}`)));
}

/** Without a layers_pattern the first number after a name is the layer, which it is here. */
function isInLayers(peft: PeftConfig, layers: ReadonlySet<number>, names: string[]): boolean[] {
  const layerOf = (name: string) => Number(/\.layers\.(\d+)\./.exec(name)?.[1] ?? -1);
  const patterns = peft.layersPattern.map((pattern) => `(?:^|.*?\\.)${pattern}\\.(?P<idx>\\d+)\\.`);
  const matched =
    patterns.length === 0
      ? names.map(() => 0)
      : withField(peft, 'layers_pattern', () => firstMatches(patterns, names));
  return names.map((name, i) => (matched[i] as number) >= 0 && layers.has(layerOf(name)));
}

/** PEFT's rule: the first key that, as a regular expression, matches a name's last parts. */
function fromPattern(
  peft: PeftConfig,
  field: string,
  pattern: ReadonlyMap<string, number>,
  names: string[],
  otherwise: number,
): number[] {
  if (pattern.size === 0) return names.map(() => otherwise);
  const keys = [...pattern.keys()];
  const first = withField(peft, field, () =>
    firstMatches(
      keys.map((key) => `(.*\\.)?(${key})$`),
      names,
    ),
  );
  const values = [...pattern.values()];
  return names.map((name, i) => values[first[i] as number] ?? pattern.get(name) ?? otherwise);
}

function withField<T>(peft: PeftConfig, field: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof PythonRegexError)) throw error;
    const shown = error.pattern.length > 100 ? `${error.pattern.slice(0, 97)}...` : error.pattern;
    const message = `the regular expression ${shown} ${error.message}`;
    throw error.kind === 'invalid'
      ? peft.reader.invalid(field, message)
      : peft.reader.unsupported(field, message);
  }
}
