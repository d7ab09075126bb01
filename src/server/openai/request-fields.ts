/**
 * What the APIs' requests have in common beside sampling: how many choices, which stream, whose turn,
 * whether to reason. Throws INVALID_OPTIONS.
 */
import {
  checkBoolean,
  checkNumber,
  checkObject,
  checkString,
  type Fields,
} from '../../check-shape.js';
import type { GenerateRequest } from '../../types.js';
import { badRequest } from '../http-error.js';
import { objectOf } from './chat-messages.js';

/** Of one request, over all its prompts. */
const MAX_CHOICES = 128;

export function countOf(value: unknown, field: string): number | undefined {
  return checkNumber(value, field, { min: 1, max: MAX_CHOICES, integer: true });
}

export interface StreamFields {
  stream: boolean;
  /** In a chunk of its own before the end. */
  includeUsage: boolean;
}

export function streamOf(fields: Fields): StreamFields {
  const stream = checkBoolean(fields.stream, 'stream') ?? false;
  if (fields.stream_options === undefined) return { stream, includeUsage: false };
  if (!stream) {
    throw badRequest(
      'stream_options',
      'stream_options says how to stream, but stream is not true.',
    );
  }
  const options = checkObject(fields.stream_options, 'stream_options', [
    ...['include_usage', 'continuous_usage_stats', 'include_obfuscation'],
  ]);
  if (options.continuous_usage_stats === true) {
    const field = 'stream_options.continuous_usage_stats';
    throw badRequest(field, `${field} is not supported; include_usage is.`);
  }
  const usage = checkBoolean(options.include_usage ?? undefined, 'stream_options.include_usage');
  return { stream, includeUsage: usage ?? false };
}

type ServiceFields = Pick<GenerateRequest, 'priority' | 'cacheScope' | 'reasoning'>;

/** vLLM's `priority`, where the lowest goes first, and `cache_salt`; whether to think. */
export function serviceOf(fields: Fields): ServiceFields {
  const range = { min: -1000, max: 1000, integer: true };
  const priority = checkNumber(fields.priority, 'priority', range);
  const cacheScope = checkString(fields.cache_salt, 'cache_salt');
  return {
    ...(priority === undefined ? {} : { priority: 0 - priority }),
    ...(cacheScope === undefined ? {} : { cacheScope }),
  };
}

const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh'];

/** A model thinks or it does not: every effort but 'none' is thinking. */
export function reasoningOf(effort: unknown, field: string): boolean | undefined {
  if (effort === undefined || effort === null) return undefined;
  if (typeof effort === 'string' && EFFORTS.includes(effort)) return effort !== 'none';
  throw badRequest(field, `${field} must be one of ${EFFORTS.join(', ')}.`);
}

/** As vLLM's clients say it for templates that can. */
export function templateReasoning(value: unknown): boolean | undefined {
  if (value === undefined) return undefined;
  const field = 'chat_template_kwargs';
  const { enable_thinking: enabled, thinking, ...others } = objectOf(value, field);
  const [other] = Object.keys(others);
  if (other !== undefined) {
    throw badRequest(`${field}.${other}`, `${field}: only enable_thinking is supported.`);
  }
  return checkBoolean(enabled ?? thinking ?? undefined, `${field}.enable_thinking`);
}
