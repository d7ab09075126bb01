/**
 * Rotary position embeddings as config.json describes them, in both spellings: `rope_theta` beside
 * `rope_scaling` (transformers 4) and one `rope_parameters` (transformers 5). Called by
 * decoder-config.ts. Formulas are transformers', but for `dynamic`, whose base is frozen: see
 * `readRope`.
 */
import type { DecoderConfig } from '../addon.js';
import type { ConfigReader } from './config-reader.js';

const DEFAULT_THETA = 10_000;

export interface RopeSettings {
  ropeTheta: number;
  rope: DecoderConfig['rope'];
  /** Positions the model can use. */
  contextTokens: number;
}

/**
 * `contextTokens` is max_position_embeddings, with two exceptions:
 * - `dynamic` stretches it by `factor`. transformers grows the base with the sequence, which would
 *   change cached keys; here the base is frozen at the value for the whole stretched context.
 * - `yarn` is commonly switched on without touching max_position_embeddings, so it is at least
 *   original_max_position_embeddings * factor.
 */
export function readRope(config: ConfigReader, maxPositions: number): RopeSettings {
  const scaling = rope(config);
  const outer = config.positive('rope_theta');
  const inner = scaling?.positive('rope_theta');
  if (outer !== undefined && inner !== undefined && outer !== inner) {
    throw config.invalid('rope_theta', `${outer}, but ${inner} in rope_parameters`);
  }
  const ropeTheta = inner ?? outer ?? DEFAULT_THETA;
  // transformers lets this outer spelling win.
  const outerOriginal = config.integer('original_max_position_embeddings', 1);
  if (scaling === undefined) {
    return { ropeTheta, rope: { type: 'default' }, contextTokens: maxPositions };
  }

  const original = () =>
    outerOriginal ?? scaling.integer('original_max_position_embeddings', 1) ?? maxPositions;
  const settings = readType(scaling, ropeTheta, maxPositions, original);
  scaling.only('partial_rotary_factor', [1], 'rotary embeddings cover whole heads');
  // Written by an early YaRN release; has no effect.
  scaling.rejectUnread(new Set(['finetuned']), (value) => value === null);
  return settings;
}

function rope(config: ConfigReader): ConfigReader | undefined {
  const older = config.object('rope_scaling');
  const newer = config.object('rope_parameters');
  if (older !== undefined && newer !== undefined) {
    throw config.invalid('rope_parameters', 'given together with rope_scaling: keep one of them');
  }
  return newer ?? older;
}

function readType(
  scaling: ConfigReader,
  ropeTheta: number,
  maxPositions: number,
  original: () => number,
): RopeSettings {
  const newer = scaling.string('rope_type');
  const older = scaling.string('type');
  if (newer !== undefined && older !== undefined && newer !== older) {
    throw scaling.invalid('type', `${older}, but rope_type is ${newer}`);
  }
  const type = newer ?? older ?? 'default';
  const settings = (rope: DecoderConfig['rope'], contextTokens = maxPositions): RopeSettings => ({
    ropeTheta,
    rope,
    contextTokens,
  });
  switch (type) {
    case 'default':
      return settings({ type });
    case 'linear':
      return settings({ type, factor: factor(scaling) });
    case 'dynamic': {
      const by = factor(scaling);
      const originalContext = original();
      if (originalContext !== maxPositions) {
        throw scaling.unsupported(
          'original_max_position_embeddings',
          `${originalContext} other than max_position_embeddings ${maxPositions} with type dynamic`,
        );
      }
      return settings({ type, factor: by, originalContext }, Math.floor(maxPositions * by));
    }
    case 'llama3': {
      const lowFreqFactor = scaling.requiredPositive('low_freq_factor');
      const highFreqFactor = scaling.requiredPositive('high_freq_factor');
      if (highFreqFactor <= lowFreqFactor) {
        throw scaling.invalid(
          'high_freq_factor',
          `${highFreqFactor} is not above low_freq_factor ${lowFreqFactor}`,
        );
      }
      const originalContext = original();
      return settings({
        type,
        factor: factor(scaling),
        lowFreqFactor,
        highFreqFactor,
        originalContext,
      });
    }
    case 'yarn':
      return yarn(scaling, settings, maxPositions, original());
    default:
      throw scaling.unsupported(
        newer === undefined ? 'type' : 'rope_type',
        `"${type}": supported are default, linear, dynamic, llama3, yarn`,
      );
  }
}

function yarn(
  scaling: ConfigReader,
  settings: (rope: DecoderConfig['rope'], contextTokens: number) => RopeSettings,
  maxPositions: number,
  originalContext: number,
): RopeSettings {
  const by = scaling.has('factor') ? factor(scaling) : maxPositions / originalContext;
  if (by < 1) throw scaling.invalid('factor', `expected a number >= 1, found ${by}`);
  const betaFast = scaling.positive('beta_fast') ?? 32;
  const betaSlow = scaling.positive('beta_slow') ?? 1;
  if (betaFast < betaSlow) {
    throw scaling.invalid('beta_fast', `${betaFast} is below beta_slow ${betaSlow}`);
  }
  // m(s) = 0.1 * s * ln(factor) + 1; the attention factor is m(1), or m(mscale)/m(mscale_all_dim).
  const m = (scale: number) => (by <= 1 ? 1 : 0.1 * scale * Math.log(by) + 1);
  const mscale = scaling.value('mscale');
  const mscaleAllDim = scaling.value('mscale_all_dim');
  for (const [field, value] of Object.entries({ mscale, mscale_all_dim: mscaleAllDim })) {
    if (value !== undefined && (typeof value !== 'number' || !(value >= 0))) {
      throw scaling.invalid(field, `expected a number >= 0, found ${JSON.stringify(value)}`);
    }
  }
  const derived = mscale && mscaleAllDim ? m(mscale as number) / m(mscaleAllDim as number) : m(1);
  return settings(
    {
      type: 'yarn',
      factor: by,
      originalContext,
      betaFast,
      betaSlow,
      attentionFactor: scaling.positive('attention_factor') ?? derived,
      truncate: scaling.boolean('truncate') ?? true,
    },
    Math.max(maxPositions, Math.floor(originalContext * by)),
  );
}

function factor(scaling: ConfigReader): number {
  const value = scaling.requiredPositive('factor');
  if (value < 1) throw scaling.invalid('factor', `expected a number >= 1, found ${value}`);
  return value;
}
