/**
 * The AI SDK's call settings as Sampling, under the provider's defaults.
 *
 * What cannot be honoured is an error if the answer would be wrong without it (tools) and a
 * warning if it would only be different. `providerOptions.lorax` holds what the AI SDK has no
 * setting for.
 */
import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { checkObject } from '../check-shape.js';
import { checkSampling, checkStop } from '../sampling-options.js';
import type { Constraint, Sampling } from '../types.js';
import { CONSTRAINT_KEYS, convertConstraint } from './convert-constraint.js';
import type { ConstraintProviderOptions } from './convert-constraint.js';
import { unsupported } from './convert-prompt.js';
import type { LoraxWarning } from './model-types.js';

/** `providerOptions: { lorax: { ... } satisfies LoraxProviderOptions }` */
export type LoraxProviderOptions = Pick<
  Sampling,
  'minP' | 'repetitionPenalty' | 'logitBias' | 'logprobs' | 'stopTokenIds' | 'ignoreEos'
> &
  ConstraintProviderOptions;

const SAMPLING_OPTION_KEYS = [
  'minP',
  'repetitionPenalty',
  'logitBias',
  'logprobs',
  'stopTokenIds',
  'ignoreEos',
] as const satisfies readonly (keyof LoraxProviderOptions)[];

const PROVIDER_OPTION_KEYS = [...SAMPLING_OPTION_KEYS, ...CONSTRAINT_KEYS];

export interface ConvertedOptions {
  sampling: Sampling;
  constraint: Constraint | undefined;
  warnings: LoraxWarning[];
}

export function convertOptions(
  options: LanguageModelV4CallOptions,
  defaults: Sampling,
): ConvertedOptions {
  const warnings: LoraxWarning[] = [];
  if (options.tools !== undefined && options.tools.length > 0) throw unsupported('tools');
  if (options.reasoning !== undefined && options.reasoning !== 'provider-default') {
    warnings.push({
      type: 'unsupported',
      feature: 'reasoning',
      details: 'lorax-js has no reasoning effort; the setting is ignored.',
    });
  }
  if (options.toolChoice !== undefined && !['auto', 'none'].includes(options.toolChoice.type)) {
    throw unsupported(`tool choices of type ${options.toolChoice.type}`);
  }
  const field = 'providerOptions.lorax';
  const extra = options.providerOptions?.lorax ?? {};
  const { regex, choice, grammar, ...more } = checkObject(extra, field, PROVIDER_OPTION_KEYS);
  const asked = { regex, choice, grammar } as ConstraintProviderOptions;
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
  return {
    sampling: { ...defaults, ...settings, ...checkSampling(more, field) },
    constraint: convertConstraint(options.responseFormat, asked, field),
    warnings,
  };
}
