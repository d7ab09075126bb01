// Logs and spans of a request: its id everywhere, its prompt nowhere, its trace the caller's.
import { context, propagation, trace } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { LoraxError } from '../../src/errors.js';
import { createServer } from '../../src/server/create-server.js';
import { observeEngine, type RequestEnd } from '../../src/server/process/observed-engine.js';
import { scopeMiddleware } from '../../src/server/process/request-scope.js';
import { createLog, logMiddleware, logObserver } from '../../src/server/process/server-log.js';
import { traceObserver } from '../../src/server/process/tracing.js';
import { FakeEngine } from '../../src/testing/fake-engine.js';

const spans = new InMemorySpanExporter();
beforeAll(() => {
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] });
  trace.setGlobalTracerProvider(provider);
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
});
afterAll(() => {
  trace.disable();
  propagation.disable();
  context.disable();
});
beforeEach(() => spans.reset());

const PROMPT = 'the treasure is buried under the mill';
const ANSWER = 'I will tell nobody of the mill';

function serverOf({ logLevel = 'info' as 'info' | 'debug', logPrompts = false } = {}) {
  const lines: Record<string, unknown>[] = [];
  const log = createLog(
    { logLevel },
    { write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const fake = new FakeEngine({
    answers: {
      base: ANSWER,
      pirate: ANSWER,
      broken: {
        text: 'so far',
        thenFail: new LoraxError('ENGINE_LOST', `lost at ${PROMPT}`),
      },
    },
  });
  const engine = observeEngine(fake, [logObserver(log), traceObserver('demo')]);
  const { fetch } = createServer({
    ...{ engine, modelName: 'demo' },
    middleware: [scopeMiddleware, logMiddleware(log, logPrompts)],
  });
  const ask = async (model: string, headers: Record<string, string> = {}, more: object = {}) => {
    const answer = await fetch(
      new Request('http://server/v1/completions', {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'x-request-id': 'mine-7', ...headers },
        body: JSON.stringify({ model, prompt: PROMPT, ...more }),
      }),
    );
    return { status: answer.status, text: await answer.text() };
  };
  return { lines, ask, fake, engine };
}

describe('logs', () => {
  test('have the request’s id in every line, and no prompt or answer in any', async () => {
    const { lines, ask } = serverOf({ logLevel: 'debug' });
    expect((await ask('pirate', {}, { n: 2, temperature: 1 })).status).toBe(200);
    await ask('broken', {}, { stream: true });
    await ask('no-such-adapter');
    expect(lines.length).toBeGreaterThanOrEqual(7);
    expect(lines.filter(({ requestId }) => requestId !== 'mine-7')).toEqual([]);
    for (const text of [PROMPT, ANSWER, 'treasure', 'mill']) {
      expect(JSON.stringify(lines)).not.toContain(text);
    }
    const generations = lines.filter(({ msg }) => msg === 'generation');
    expect(generations.map(({ generation, outcome, code }) => [generation, outcome, code])).toEqual(
      [
        [1, 'finished', undefined],
        [2, 'finished', undefined],
        [1, 'failed', 'ENGINE_LOST'],
        [1, 'failed', 'ADAPTER_NOT_FOUND'],
      ],
    );
    expect(lines.filter(({ msg }) => msg === 'request').map(({ status }) => status)).toEqual([
      ...[200, 200, 404],
    ]);
  });

  test('have prompts where they were asked for, at level debug', async () => {
    const asked = serverOf({ logLevel: 'debug', logPrompts: true });
    await asked.ask('pirate');
    expect(JSON.stringify(asked.lines)).toContain(PROMPT);
    const quiet = serverOf({ logLevel: 'info', logPrompts: true });
    await quiet.ask('pirate');
    expect(JSON.stringify(quiet.lines)).not.toContain(PROMPT);
  });
});

describe('spans', () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  const parentId = 'b7ad6b7169203331';

  test('queue, prefill and decode lie in one below the caller’s, one after another', async () => {
    const { ask } = serverOf();
    await ask('pirate', { traceparent: `00-${traceId}-${parentId}-01` });
    // Whatever time lies before the queue is the adapter's; here there need be none.
    const all = spans.getFinishedSpans().filter(({ name }) => name !== 'adapter load');
    expect(all.map(({ name }) => name)).toEqual(['queue', 'prefill', 'decode', 'generate']);
    const whole = all.at(-1);
    expect(whole?.spanContext().traceId).toBe(traceId);
    expect(whole?.parentSpanContext?.spanId).toBe(parentId);
    expect(whole?.attributes).toMatchObject({
      'gen_ai.request.model': 'demo',
      'lorax.adapters': ['pirate'],
      'lorax.request_id': 'mine-7',
      'gen_ai.response.finish_reasons': ['stop'],
    });
    expect(whole?.attributes['gen_ai.usage.output_tokens']).toBeGreaterThan(1);
    const ms = ([seconds, nanoseconds]: [number, number]) => seconds * 1e3 + nanoseconds / 1e6;
    for (const span of all.slice(0, -1)) {
      expect(span.parentSpanContext?.spanId).toBe(whole?.spanContext().spanId);
      expect(ms(span.startTime)).toBeGreaterThanOrEqual(ms(whole?.startTime ?? [0, 0]));
      expect(ms(span.endTime)).toBeLessThanOrEqual(ms(whole?.endTime ?? [0, 0]));
    }
    const [queue, prefill, decode] = all;
    expect(queue?.endTime).toEqual(prefill?.startTime);
    expect(prefill?.endTime).toEqual(decode?.startTime);
    expect(JSON.stringify(all.map(({ attributes }) => attributes))).not.toContain(PROMPT);
  });

  test('a failure has its code, and not its words', async () => {
    const { ask } = serverOf();
    await ask('broken', {}, { stream: true });
    const failed = spans.getFinishedSpans().find(({ name }) => name === 'generate');
    expect(failed?.status).toMatchObject({ message: 'ENGINE_LOST' });
    expect(JSON.stringify([failed?.attributes, failed?.events])).not.toContain('treasure');
  });
});

test('a watch hears one end, whatever becomes of a request', async () => {
  const ends: Pick<RequestEnd, 'outcome' | 'reason'>[] = [];
  const fake = new FakeEngine({ answers: { base: 'one two three four' }, tokenMs: 2 });
  const engine = observeEngine(fake, [
    () => ({ end: ({ outcome, reason }) => ends.push({ outcome, ...(reason ? { reason } : {}) }) }),
  ]);
  const read = async (request: object, leaveAfter = Number.POSITIVE_INFINITY) => {
    let count = 0;
    for await (const _ of engine.generate({ prompt: 'x', ...request })) {
      if (++count >= leaveAfter) break;
    }
  };
  await read({});
  await read({}, 2);
  const abort = new AbortController();
  const aborted = read({ signal: abort.signal });
  setTimeout(() => abort.abort(), 4);
  await expect(aborted).rejects.toThrow();
  await expect(read({ adapter: 'none' })).rejects.toThrow('none');
  await engine.embed({ input: ['a'] });
  await expect(engine.embed({ input: ['a'], adapter: 'none' })).rejects.toThrow('none');
  await engine.tenant('one').embed({ input: ['a'] });
  await expect.poll(() => ends.length).toBe(7);
  expect(ends.map(({ outcome }) => outcome)).toEqual([
    ...['finished', 'aborted', 'aborted', 'failed', 'finished', 'failed', 'finished'],
  ]);
});
