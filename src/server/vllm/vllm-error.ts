/** The errors of vLLM's own endpoints, whose types are not OpenAI's. */
import type { ServerContext } from '../environment.js';

const TYPES = {
  BadRequestError: 400,
  InvalidUserInput: 400,
  NotFoundError: 404,
} as const;

export function vllmError(c: ServerContext, type: keyof typeof TYPES, message: string): Response {
  const code = TYPES[type];
  return c.json({ error: { message, type, param: null, code } }, code);
}
