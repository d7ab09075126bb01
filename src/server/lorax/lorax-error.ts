/** Failures as LoRAX's clients read them: a message and its kind. */
import type { ServerContext } from '../environment.js';
import { toHttpError, type HttpError } from '../http-error.js';

interface LoraxErrorJson {
  error: string;
  error_type: 'validation' | 'overloaded' | 'generation' | 'incomplete_generation';
}

export function loraxErrorJson({ status, message }: HttpError): LoraxErrorJson {
  if (status === 429) return { error: message, error_type: 'overloaded' };
  return { error: message, error_type: status < 500 ? 'validation' : 'generation' };
}

/** LoRAX answers what is wrong with a request with 422. */
export function toLoraxError(c: ServerContext, error: unknown): Response {
  if (c.req.raw.signal.aborted) throw error;
  const failure = toHttpError(error);
  const status = failure.status === 400 ? 422 : failure.status;
  return Response.json(loraxErrorJson(failure), { status, headers: failure.headers });
}
