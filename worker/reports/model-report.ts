/**
 * What a model takes of a device, from its files' headers alone: nothing is loaded.
 *
 * Sizes follow from the same tables that loading checks files against (expectedTensors, projections),
 * so they cannot say anything else. Called by `lorax-js estimate` and `inspect`.
 */
import { MODULES, type DecoderConfig, type NativeModelSpec } from '../addon.js';
import { projections } from '../files/peft-targets.js';

/** What weights, KV and adapters are kept in. */
export type ElementBytes = 2 | 4;

export interface ModelReport {
  architecture: string;
  parameters: number;
  layers: number;
  hiddenSize: number;
  vocabSize: number;
  contextTokens: number;
  /** As the engine keeps them; the files may have another type. */
  weightBytes: number;
  kvBytesPerToken: number;
}

export function reportModel(
  { config, tensors }: NativeModelSpec,
  elementBytes: ElementBytes,
): ModelReport {
  const parameters = tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const { architecture, numLayers, hiddenSize, vocabSize, contextTokens } = config;
  return {
    ...{ architecture, parameters, layers: numLayers, hiddenSize, vocabSize, contextTokens },
    weightBytes: parameters * elementBytes,
    kvBytesPerToken: 2 * numLayers * config.numKvHeads * config.headDim * elementBytes,
  };
}

/** Modules that may be named as targets of an adapter that is yet to be made. */
export const TARGETS = MODULES.slice(0, 7);

/** Of a LoRA of one rank on all layers: r (d_in + d_out) values for each projection. */
export function adapterBytes(
  config: DecoderConfig,
  rank: number,
  targets: readonly string[],
  elementBytes: ElementBytes,
): number {
  let values = 0;
  for (const { module, inputSize, outputSize } of projections(config).values()) {
    if (targets.includes(MODULES[module] as string)) values += rank * (inputSize + outputSize);
  }
  return values * elementBytes;
}
