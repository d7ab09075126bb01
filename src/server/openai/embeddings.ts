/** POST /v1/embeddings: vectors as numbers or as base64 of their float32 bytes. */
import {
  checkArray,
  checkOneOf,
  describe,
  invalidOptions,
  type Fields,
} from '../../check-shape.js';
import type { RegisterRoutes } from '../environment.js';
import { badRequest } from '../http-error.js';
import { adapterAsked } from '../model-name.js';
import { readBody } from '../read-body.js';
import { serviceOf } from './request-fields.js';

const MAX_INPUTS = 2048;

export const registerEmbeddings: RegisterRoutes = (app, state) => {
  app.post('/v1/embeddings', async (c) => {
    const fields = await readBody(c, state.maxBodyBytes);
    const input = inputOf(fields);
    const formats = ['float', 'base64'] as const;
    const format = checkOneOf(fields.encoding_format, 'encoding_format', formats) ?? 'float';
    const { model, adapter } = await adapterAsked(state, fields.model);
    const { priority } = serviceOf(fields);
    const startedAt = performance.now();
    const { embeddings, usage } = await c.get('engine').embed({
      input,
      signal: c.req.raw.signal,
      ...(adapter === undefined ? {} : { adapter }),
      ...(priority === undefined ? {} : { priority }),
    });
    const size = embeddings[0]?.length;
    if (fields.dimensions !== undefined && fields.dimensions !== size) {
      throw badRequest('dimensions', `dimensions: this model's embeddings have ${size}, no other.`);
    }
    c.get('onUsage')?.(
      { promptTokens: usage.promptTokens, cachedTokens: 0, outputTokens: 0 },
      { queueMs: 0, timeToFirstTokenMs: null, totalMs: performance.now() - startedAt },
    );
    return c.json({
      object: 'list',
      data: embeddings.map((vector, index) => ({
        object: 'embedding',
        index,
        embedding: format === 'base64' ? base64Of(vector) : Array.from(vector),
      })),
      model,
      usage: { prompt_tokens: usage.promptTokens, total_tokens: usage.promptTokens },
    });
  });
};

function inputOf({ input }: Fields): string[] {
  const texts = checkArray(typeof input === 'string' ? [input] : input, 'input') ?? [];
  if (texts.length === 0 || texts.length > MAX_INPUTS) {
    throw badRequest('input', `input must be a text, or 1 to ${MAX_INPUTS} of them.`);
  }
  return texts.map((text, at) => {
    if (typeof text === 'string' && text !== '') return text;
    throw invalidOptions(
      'input',
      `input[${at}] must be a non-empty text, not ${describe(text)}; token ids are not embedded here.`,
    );
  });
}

/** Little-endian, as the clients read it. */
function base64Of(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  vector.forEach((value, at) => bytes.writeFloatLE(value, at * 4));
  return bytes.toString('base64');
}
