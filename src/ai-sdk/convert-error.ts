/**
 * Failures in the AI SDK's terms: what may be retried is an APICallError that says so, an unknown
 * adapter is a NoSuchModelError. Everything else, reasons of aborts included, stays what it is.
 */
import { APICallError, NoSuchModelError } from '@ai-sdk/provider';
import { LoraxError } from '../errors.js';
import type { LoraxErrorCode } from '../errors.js';
import { retryHeaders } from '../retry-after.js';

const RETRYABLE: Partial<Record<LoraxErrorCode, number>> = { QUEUE_FULL: 429, WORKER_DIED: 503 };

export type ModelType = 'languageModel' | 'embeddingModel';

export function convertError(
  error: unknown,
  modelId: string,
  modelType: ModelType = 'languageModel',
): unknown {
  if (!LoraxError.isInstance(error)) return error;
  if (error.code === 'ADAPTER_NOT_FOUND') return noSuchModel(modelId, error, modelType);
  const statusCode = RETRYABLE[error.code];
  if (statusCode === undefined) return error;
  return new APICallError({
    message: error.message,
    // There is no server; the name of the engine stands where others have an address.
    url: 'lorax-js:engine',
    requestBodyValues: { modelId },
    statusCode,
    responseHeaders: retryHeaders(error.data.retryAfterMs),
    isRetryable: true,
    data: { code: error.code, ...error.data },
    cause: error,
  });
}

export function noSuchModel(
  modelId: string,
  cause: LoraxError,
  modelType: ModelType,
): NoSuchModelError {
  const error = new NoSuchModelError({ modelId, modelType, message: cause.message });
  return Object.assign(error, { cause });
}

export function cutOff(): LoraxError {
  return new LoraxError('ENGINE_LOST', "The engine's answer ended without its last event.");
}
