/**
 * What the AI SDK's `responseFormat` and `providerOptions.lorax` ask of the whole output.
 *
 * A JSON response is constrained to its schema token by token (any object where there is none); what
 * the AI SDK has no setting for is in `regex`, `choice` and `grammar`. One of these at most. Called by
 * convert-options.ts.
 */
import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { onlyConstraint, type AskedConstraint } from '../asked-constraints.js';
import type { Constraint, JsonSchema } from '../types.js';

export interface ConstraintProviderOptions {
  /** ECMAScript syntax, flag u; the whole output matches. */
  regex?: string;
  /** The output is one of these. */
  choice?: string[];
  /** GBNF; begins at the rule `root`. */
  grammar?: string;
}

export const CONSTRAINT_KEYS = [
  'regex',
  'choice',
  'grammar',
] as const satisfies readonly (keyof ConstraintProviderOptions)[];

export function convertConstraint(
  format: LanguageModelV4CallOptions['responseFormat'],
  { regex, choice, grammar }: ConstraintProviderOptions,
  field: string,
): Constraint | undefined {
  const asked: AskedConstraint[] = [];
  if (format?.type === 'json') {
    const schema = format.schema as JsonSchema | undefined;
    const constraint: Constraint =
      schema === undefined ? { type: 'json' } : { type: 'json', schema };
    asked.push({ name: 'responseFormat', constraint });
  }
  if (regex !== undefined) {
    asked.push({ name: `${field}.regex`, constraint: { type: 'regex', pattern: regex } });
  }
  if (choice !== undefined) {
    asked.push({ name: `${field}.choice`, constraint: { type: 'choice', choices: choice } });
  }
  if (grammar !== undefined) {
    asked.push({ name: `${field}.grammar`, constraint: { type: 'grammar', grammar } });
  }
  return onlyConstraint(asked);
}
