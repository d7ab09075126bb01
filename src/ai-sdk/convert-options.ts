/**
 * The AI SDK's call settings as Sampling, under the provider's defaults.
 *
 * What cannot be honoured is an error if the answer would be wrong without it (JSON) and a
 * warning if it would only be different. `providerOptions.lorax` holds what the AI SDK has no
 * setting for.
 */
import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { checkBoolean, checkObject } from '../check-shape.js';
import { checkSampling, checkStop } from '../sampling-options.js';
import type { Sampling } from '../types.js';
import type { LoraxWarning } from './model-types.js';
import { unsupported } from './unsupported.js';

/** `providerOptions: { lorax: { ... } satisfies LoraxProviderOptions }` */
export type LoraxProviderOptions = Pick<
  Sampling,
  'minP' | 'repetitionPenalty' | 'logitBias' | 'logprobs' | 'stopTokenIds' | 'ignoreEos'
> & {
  /** false: one call at most. */
  parallelToolCalls?: boolean;
  /** Whether a model that can reason does; goes before the AI SDK's `reasoning`. */
  reasoning?: boolean;
};

const PROVIDER_OPTION_KEYS = [
  'minP',
  'repetitionPenalty',
  'logitBias',
  'logprobs',
  'stopTokenIds',
  'ignoreEos',
  'parallelToolCalls',
  'reasoning',
] as const satisfies readonly (keyof LoraxProviderOptions)[];

export interface ConvertedOptions {
  sampling: Sampling;
  parallelToolCalls?: boolean;
  reasoning?: boolean;
  warnings: LoraxWarning[];
}

export function convertOptions(
  options: LanguageModelV4CallOptions,
  defaults: Sampling,
): ConvertedOptions {
  const warnings: LoraxWarning[] = [];
  if (options.responseFormat?.type === 'json') throw unsupported('JSON response formats');
  const field = 'providerOptions.lorax';
  const extra = options.providerOptions?.lorax ?? {};
  const { parallelToolCalls, reasoning, ...sampling } = checkObject(
    extra,
    field,
    PROVIDER_OPTION_KEYS,
  );
  const settings = checkSampling(
    {
      maxOutputTokens: options.maxOutputTokens,
      temperature: options.temperature,
      topK: options.topK,
      topP: options.topP,
      frequencyPenalty: options.frequencyPenalty,
      presencePenalty: options.presencePenalty,
      seed: options.seed,
    },
    'settings',
  );
  // Under the name the AI SDK gives it, which is what its users wrote.
  const stop = checkStop(options.stopSequences, 'settings.stopSequences');
  if (stop !== undefined) settings.stop = stop;
  const converted: ConvertedOptions = {
    sampling: { ...defaults, ...settings, ...checkSampling(sampling, field) },
    warnings,
  };
  const parallel = checkBoolean(parallelToolCalls, `${field}.parallelToolCalls`);
  if (parallel !== undefined) converted.parallelToolCalls = parallel;
  const reasons =
    checkBoolean(reasoning, `${field}.reasoning`) ?? reasoningOf(options.reasoning, warnings);
  if (reasons !== undefined) converted.reasoning = reasons;
  return converted;
}

/** Models reason or do not; an effort between the two is none that they know. */
function reasoningOf(
  effort: LanguageModelV4CallOptions['reasoning'],
  warnings: LoraxWarning[],
): boolean | undefined {
  if (effort === undefined || effort === 'provider-default') return undefined;
  if (effort === 'none') return false;
  warnings.push({
    type: 'compatibility',
    feature: 'reasoning',
    details: `lorax-js turns reasoning on or off; "${effort}" is on.`,
  });
  return true;
}
