// Every part of the language-model specification, on the real engine and the demo model.
import type { LanguageModelV4CallOptions, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import type { LoraxProvider } from 'lorax-js';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Sdk } from './sdk.js';
import { user } from './sdk.js';

const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));
const adapters = { pirate: `${demo}/adapters/pirate`, caps: `${demo}/adapters/caps` };
const QUESTION = 'Where is my order 4821?';
const ENDLESS = { lorax: { ignoreEos: true } };

export function describeSpec({ ai, createLorax, specificationVersion }: Sdk): void {
  let lorax: LoraxProvider;
  beforeAll(() => {
    lorax = createLorax({ model: demo, adapters, defaults: { maxOutputTokens: 60 } });
  });
  afterAll(() => lorax.dispose());

  const partsOf = async (
    options: Partial<LanguageModelV4CallOptions> = {},
    name = 'pirate',
  ): Promise<LanguageModelV4StreamPart[]> => {
    const { stream } = await lorax(name).doStream({ prompt: user(QUESTION), ...options });
    const parts: LanguageModelV4StreamPart[] = [];
    for await (const part of stream) parts.push(part as LanguageModelV4StreamPart);
    return parts;
  };
  const find = <T extends LanguageModelV4StreamPart['type']>(
    parts: LanguageModelV4StreamPart[],
    type: T,
  ) => parts.filter((part): part is LanguageModelV4StreamPart & { type: T } => part.type === type);
  const idle = async () => {
    for (let i = 0; i < 400; i++) {
      const { requests, pages } = await lorax.stats();
      if (requests.running + requests.waiting === 0) return pages.kv;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error('requests are still running');
  };

  describe('a model', () => {
    it('says what it is and what it can do', () => {
      const model = lorax('pirate');
      expect(model).toMatchObject({ specificationVersion, provider: 'lorax', modelId: 'pirate' });
      expect(model.supportedUrls).toEqual({});
      expect(model.capabilities.input).toMatchObject({ text: true, images: false, audio: false });
    });
  });

  describe('doStream', () => {
    /** Runs of one kind count once: how many deltas there are depends on the reader's pace. */
    const kinds = (parts: LanguageModelV4StreamPart[]) =>
      parts.map(({ type }) => type).filter((type, i, all) => type !== all[i - 1]);

    it('begins with warnings and metadata, ends with usage and reasons', async () => {
      const tool = { type: 'provider' as const, id: 'other.search' as const, name: 's', args: {} };
      const parts = await partsOf({ tools: [tool] });
      expect(kinds(parts)).toEqual([
        ...['stream-start', 'response-metadata', 'text-start', 'text-delta', 'text-end', 'finish'],
      ]);
      expect(find(parts, 'stream-start')[0]?.warnings).toEqual([
        expect.objectContaining({ type: 'unsupported', feature: 'provider tool other.search' }),
      ]);
      expect(find(parts, 'response-metadata')[0]).toMatchObject({
        ...{ id: expect.stringMatching(/^lorax-/), modelId: 'pirate' },
        timestamp: expect.any(Date),
      });
      const [finish] = find(parts, 'finish');
      expect(finish?.finishReason).toEqual({ unified: 'stop', raw: 'eos' });
      const { inputTokens, outputTokens, raw } = finish!.usage;
      expect(inputTokens.total).toBeGreaterThan(5);
      expect(inputTokens.noCache! + inputTokens.cacheRead!).toBe(inputTokens.total);
      expect(inputTokens.cacheWrite).toBeUndefined();
      expect(outputTokens).toEqual({
        ...{ total: raw?.outputTokens, text: raw?.outputTokens, reasoning: undefined },
      });
      expect(raw).toMatchObject({
        promptTokens: inputTokens.total,
        cachedTokens: expect.any(Number),
      });
      expect(finish?.providerMetadata?.lorax).toMatchObject({
        ...{ adapter: 'pirate', adapterHash: expect.stringMatching(/^[0-9a-f]{64}$/) },
        ...{ queueMs: expect.any(Number), timeToFirstTokenMs: expect.any(Number) },
      });
    });

    it.each([
      [{ maxOutputTokens: 3 }, { unified: 'length', raw: 'max-output-tokens' }],
      [{ stopSequences: ['sailin'] }, { unified: 'stop', raw: 'stop-string:sailin' }],
      [{}, { unified: 'stop', raw: 'eos' }],
    ])('says why it ended: %j', async (options, finishReason) => {
      expect(find(await partsOf(options), 'finish')[0]?.finishReason).toEqual(finishReason);
      const { finishReason: generated } = await lorax('pirate').doGenerate({
        ...{ prompt: user(QUESTION), ...options },
      });
      expect(generated).toEqual(finishReason);
    });

    it("gives the engine's events where raw chunks are asked for, and only there", async () => {
      const parts = await partsOf({ includeRawChunks: true });
      const raw = find(parts, 'raw').map(({ rawValue }) => (rawValue as { type: string }).type);
      expect(raw[0]).toBe('start');
      expect(raw.at(-1)).toBe('finish');
      expect(raw).toContain('delta');
      expect(kinds(parts.filter(({ type }) => type !== 'raw'))).toEqual(kinds(await partsOf()));
      expect(find(await partsOf(), 'raw')).toEqual([]);
    });

    it('says the same as doGenerate', async () => {
      const parts = await partsOf();
      const text = find(parts, 'text-delta').map(({ delta }) => delta);
      const { content, usage, response, warnings, providerMetadata } = await lorax(
        'pirate',
      ).doGenerate({ prompt: user(QUESTION) });
      expect(content).toEqual([{ type: 'text', text: text.join('') }]);
      expect(usage.outputTokens).toEqual(find(parts, 'finish')[0]?.usage.outputTokens);
      expect(response).toMatchObject({ modelId: 'pirate', timestamp: expect.any(Date) });
      expect(warnings).toEqual([]);
      expect(providerMetadata.lorax.adapter).toBe('pirate');
    });
  });

  describe('errors', () => {
    it('before a stream reject the call', async () => {
      await expect(lorax('nobody').doStream({ prompt: user('x') })).rejects.toSatisfy(
        ai.NoSuchModelError.isInstance,
      );
      const image = { type: 'file' as const, mediaType: 'image/png', data: new Uint8Array([1]) };
      const asked = ai.generateText({
        model: lorax(),
        messages: [{ role: 'user', content: [{ type: 'text', text: 'What is it?' }, image] }],
      });
      await expect(asked).rejects.toSatisfy(ai.UnsupportedFunctionalityError.isInstance);
      await expect(asked).rejects.toThrow(/image\/png/);
      await expect(
        lorax().doStream({ prompt: user('word '.repeat(10_000)) }),
      ).rejects.toMatchObject({ code: 'CONTEXT_TOO_LONG' });
    });

    it('within a stream are a part of it, and its end', async () => {
      const own = createLorax({ model: demo, name: 'own' });
      const { stream } = await own().doStream({
        ...{ prompt: user(QUESTION), providerOptions: ENDLESS },
      });
      const seen: string[] = [];
      const read = (async () => {
        for await (const part of stream) {
          seen.push(part.type);
          if (seen.length === 6) void own.dispose();
        }
      })();
      await expect(read).rejects.toMatchObject({ code: 'DISPOSED' });
      expect(seen.at(-1)).toBe('error');
      expect(seen).not.toContain('finish');
    });

    it('that pass by are retried, after the time they tell', async () => {
      const own = createLorax({ model: demo, maxQueued: 4, name: 'own' });
      await own.engine.ready();
      const calls = (count: number, maxRetries: number) =>
        Array.from({ length: count }, () =>
          ai.generateText({ model: own(), prompt: QUESTION, maxRetries, maxOutputTokens: 4 }),
        );
      const outcomes = await Promise.allSettled(calls(8, 0));
      const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
      expect(refused.length).toBeGreaterThan(0);
      for (const { reason } of refused) {
        expect(ai.APICallError.isInstance(reason)).toBe(true);
        expect(reason).toMatchObject({
          ...{ statusCode: 429, isRetryable: true, data: { code: 'QUEUE_FULL' } },
          responseHeaders: { 'retry-after': '1' },
        });
      }
      const begun = performance.now();
      const answers = await Promise.all(calls(8, 2));
      expect(answers.every(({ text }) => text !== '')).toBe(true);
      expect(performance.now() - begun).toBeGreaterThan(900);
      await own.dispose();
    });
  });

  describe('leaving', () => {
    it('by a signal: aborts, and the pages come back', async () => {
      const before = await idle();
      const controller = new AbortController();
      const onAbort = vi.fn();
      const { textStream } = ai.streamText({
        ...{ model: lorax(), prompt: QUESTION, maxOutputTokens: 3000, onAbort },
        ...{ providerOptions: ENDLESS, abortSignal: controller.signal },
      });
      let seen = 0;
      for await (const _ of textStream) if (++seen === 3) controller.abort();
      expect(onAbort).toHaveBeenCalledTimes(1);
      const generated = new AbortController();
      const answer = ai.generateText({
        ...{ model: lorax(), prompt: QUESTION, maxOutputTokens: 3000 },
        ...{ providerOptions: ENDLESS, abortSignal: generated.signal },
      });
      setTimeout(() => generated.abort(new Error('enough')), 50);
      await expect(answer).rejects.toThrow('enough');
      expect(await idle()).toBe(before);
    });

    it('by cancelling: no error for anyone', async () => {
      const before = await idle();
      const { totals } = await lorax.stats();
      const { stream } = await lorax().doStream({
        ...{ prompt: user(QUESTION), providerOptions: ENDLESS, maxOutputTokens: 3000 },
      });
      const reader = stream.getReader();
      for (let i = 0; i < 6; i++) await reader.read();
      await reader.cancel();
      expect(await idle()).toBe(before);
      expect((await lorax.stats()).totals.aborted).toBe(totals.aborted + 1);
    });
  });

  describe('a slow reader', () => {
    it('holds up nobody and grows no queue', async () => {
      const maxOutputTokens = 1500;
      const options = { prompt: user(QUESTION), providerOptions: ENDLESS, maxOutputTokens };
      const { stream } = await lorax().doStream(options);
      const reader = stream.getReader();
      for (let i = 0; i < 4; i++) await reader.read();
      // Others run at full speed meanwhile, and the slow one's answer is made to its end.
      expect((await partsOf()).at(-1)?.type).toBe('finish');
      await idle();
      // What it has not read waits as one delta, not as a thousand.
      const rest: LanguageModelV4StreamPart[] = [];
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        rest.push(value as LanguageModelV4StreamPart);
      }
      expect(rest.length).toBeLessThan(8);
      expect(find(rest, 'finish')[0]?.usage.outputTokens.total).toBe(maxOutputTokens);
      expect(find(rest, 'text-delta')[0]?.delta.length).toBeGreaterThan(maxOutputTokens);
    });
  });

  describe('prompts', () => {
    it('of several texts and text files are read in their order', async () => {
      const { text, usage } = await ai.generateText({
        model: lorax(),
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'Where is my order 4821?' },
              { type: 'file', mediaType: 'text/plain', data: Buffer.from('Thank you.') },
            ],
          },
        ],
        maxOutputTokens: 8,
      });
      const plain = await ai.generateText({
        ...{ model: lorax(), prompt: 'Where is my order 4821?\nThank you.', maxOutputTokens: 8 },
      });
      expect([text, usage.inputTokens]).toEqual([plain.text, plain.usage.inputTokens]);
    });
  });
}
