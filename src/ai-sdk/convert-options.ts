/**
 * The AI SDK's call settings as the engine's, under the provider's defaults.
 *
 * What is honoured only in part is a warning. `providerOptions.lorax` holds what the AI SDK has no
 * setting for.
 */
import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { checkBoolean, checkObject } from '../check-shape.js';
import { checkSampling, checkStop } from '../sampling-options.js';
import { pickService, SERVICE_KEYS } from '../service-options.js';
import type { Constraint, Sampling, ServiceOptions } from '../types.js';
import { CONSTRAINT_KEYS, convertConstraint } from './convert-constraint.js';
import type { ConstraintProviderOptions } from './convert-constraint.js';
import type { LoraxWarning } from './model-types.js';

/** `providerOptions: { lorax: { ... } satisfies LoraxProviderOptions }` */
export type LoraxProviderOptions = Pick<
  Sampling,
  'minP' | 'repetitionPenalty' | 'logitBias' | 'logprobs' | 'stopTokenIds' | 'ignoreEos'
> & {
  /** false: one call at most. */
  parallelToolCalls?: boolean;
  /** Whether a model that can reason does; goes before the AI SDK's `reasoning`. */
  reasoning?: boolean;
} & ServiceProviderOptions &
  ConstraintProviderOptions;

/** As ServiceOptions; a deadline in milliseconds from the call, because these are JSON. */
export type ServiceProviderOptions = Pick<ServiceOptions, 'priority'> & { deadline?: number };

const SAMPLING_OPTION_KEYS = [
  'minP',
  'repetitionPenalty',
  'logitBias',
  'logprobs',
  'stopTokenIds',
  'ignoreEos',
] as const satisfies readonly (keyof LoraxProviderOptions)[];

const PROVIDER_OPTION_KEYS = [
  ...SAMPLING_OPTION_KEYS,
  ...CONSTRAINT_KEYS,
  'parallelToolCalls',
  'reasoning',
  ...SERVICE_KEYS,
];

export interface ConvertedOptions {
  sampling: Sampling;
  constraint: Constraint | undefined;
  parallelToolCalls: boolean | undefined;
  reasoning: boolean | undefined;
  service: ServiceOptions;
  warnings: LoraxWarning[];
}

export function convertOptions(
  options: LanguageModelV4CallOptions,
  defaults: Sampling,
): ConvertedOptions {
  const warnings: LoraxWarning[] = [];
  const field = 'providerOptions.lorax';
  const extra = options.providerOptions?.lorax ?? {};
  const { regex, choice, grammar, parallelToolCalls, reasoning, ...rest } = checkObject(
    extra,
    field,
    PROVIDER_OPTION_KEYS,
  );
  const { priority, deadline, ...more } = rest;
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
    parallelToolCalls: checkBoolean(parallelToolCalls, `${field}.parallelToolCalls`),
    reasoning:
      checkBoolean(reasoning, `${field}.reasoning`) ?? reasoningOf(options.reasoning, warnings),
    service: pickService({ priority, deadline }, field),
    warnings,
  };
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
