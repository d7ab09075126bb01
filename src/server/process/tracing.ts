/**
 * Spans of each generation: adapter load, queue, prefill, decode, below one for the whole.
 *
 * Through @opentelemetry/api alone: without an SDK in the process nothing happens. Children are made
 * when their times are known; the parent is the caller's span, where it sent one. An observer of the
 * engine.
 */
import { performance } from 'node:perf_hooks';
import {
  context,
  SpanKind,
  SpanStatusCode,
  trace,
  type Attributes,
  type Span,
  type Tracer,
} from '@opentelemetry/api';
import { LoraxError } from '../../errors.js';
import type { EngineObserver, RequestEnd } from './observed-engine.js';
import { currentScope } from './request-scope.js';

/** Less than this before the queue is the way to the worker, no load. */
const MIN_LOAD_MS = 1;

export function traceObserver(modelName: string): EngineObserver {
  return ({ kind, adapters, tenant }) => {
    const tracer = trace.getTracer('lorax-js');
    const scope = currentScope();
    const attributes: Attributes = {
      'gen_ai.operation.name': kind === 'generate' ? 'chat' : 'embeddings',
      'gen_ai.request.model': modelName,
      ...(adapters.length === 0 ? {} : { 'lorax.adapters': [...adapters] }),
      ...(tenant === undefined ? {} : { 'lorax.tenant': tenant }),
      ...(scope === undefined ? {} : { 'lorax.request_id': scope.requestId }),
    };
    const begin = now();
    const options = { kind: SpanKind.SERVER, startTime: begin, attributes };
    const span = tracer.startSpan(kind, options, scope?.trace ?? context.active());
    let startedAt: number | undefined;
    let firstTokenAt: number | undefined;
    return {
      start: ({ queueMs, cachedTokens }) => {
        startedAt = now();
        const queuedAt = Math.max(begin, startedAt - queueMs);
        if (adapters.length > 0 && queuedAt - begin > MIN_LOAD_MS) {
          child(tracer, span, 'adapter load', begin, queuedAt);
        }
        child(tracer, span, 'queue', queuedAt, startedAt);
        span.setAttribute('lorax.cached_tokens', cachedTokens);
      },
      tokens: () => {
        if (firstTokenAt !== undefined) return;
        firstTokenAt = now();
        if (startedAt !== undefined) child(tracer, span, 'prefill', startedAt, firstTokenAt);
      },
      end: (end) => {
        const endedAt = now();
        if (firstTokenAt !== undefined) child(tracer, span, 'decode', firstTokenAt, endedAt);
        close(span, end, endedAt);
      },
    };
  };
}

function close(span: Span, { outcome, reason, usage, error }: RequestEnd, endedAt: number): void {
  span.setAttributes({
    'gen_ai.usage.input_tokens': usage.promptTokens,
    'gen_ai.usage.output_tokens': usage.outputTokens,
    'gen_ai.response.finish_reasons': [reason ?? outcome],
  });
  if (outcome === 'failed') {
    // The code alone: messages may quote what the client wrote.
    const code = LoraxError.isInstance(error) ? error.code : 'INTERNAL';
    span.setAttribute('error.type', code);
    span.setStatus({ code: SpanStatusCode.ERROR, message: code });
  }
  span.end(endedAt);
}

function child(tracer: Tracer, parent: Span, name: string, begin: number, end: number): void {
  const below = trace.setSpan(context.active(), parent);
  tracer.startSpan(name, { startTime: begin }, below).end(end);
}

/** Epoch milliseconds that never go back. */
const now = () => performance.timeOrigin + performance.now();
