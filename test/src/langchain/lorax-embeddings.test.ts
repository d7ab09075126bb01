// LoraxEmbeddings on the fake engine's vectors, where texts that share words lie near each other.
import { InMemoryStore } from '@langchain/langgraph';
import { describe, expect, it, vi } from 'vitest';
import { LoraxError } from '../../../src/errors.js';
import { LoraxEmbeddings } from '../../../src/langchain/lorax-embeddings.js';
import type { LoraxEmbeddingsFields } from '../../../src/langchain/lorax-embeddings.js';
import { FakeEngine } from '../../../src/testing/fake-engine.js';
import type { EmbedRequest } from '../../../src/types.js';

class RecordedEngine extends FakeEngine {
  readonly asked: EmbedRequest[] = [];
  failures: Error[] = [];

  override async embed(request: EmbedRequest) {
    this.asked.push(request);
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    return super.embed(request);
  }
}

function setUp(fields: LoraxEmbeddingsFields = {}) {
  const engine = new RecordedEngine({ answers: { pirate: '' } });
  return { engine, embeddings: new LoraxEmbeddings({ engine, ...fields }) };
}

const length = (vector: number[]) => Math.hypot(...vector);

describe('LoraxEmbeddings', () => {
  it('embeds a query and documents alike, as plain numbers', async () => {
    const { embeddings, engine } = setUp();
    const [one, two] = await embeddings.embedDocuments(['where is my order', 'opening hours']);
    expect(await embeddings.embedQuery('where is my order')).toEqual(one);
    expect(one).not.toEqual(two);
    expect(Array.isArray(one)).toBe(true);
    expect(length(one ?? [])).toBeCloseTo(1, 5);
    expect(engine.asked).toEqual([
      {
        ...{ input: ['where is my order', 'opening hours'], adapter: 'base' },
        ...{ pooling: 'mean', normalize: true },
      },
      { input: ['where is my order'], adapter: 'base', pooling: 'mean', normalize: true },
    ]);
  });

  it('passes adapter, pooling and normalize on', async () => {
    const { embeddings, engine } = setUp({ adapter: 'pirate', pooling: 'last', normalize: false });
    const vector = await embeddings.embedQuery('good day');
    expect(engine.asked[0]).toMatchObject({ adapter: 'pirate', pooling: 'last', normalize: false });
    expect(length(vector)).not.toBeCloseTo(1, 1);
  });

  it('asks for as many at once as batchSize, in order', async () => {
    const { embeddings, engine } = setUp({ batchSize: 2 });
    const texts = ['a', 'b', 'c', 'd', 'e'];
    const vectors = await embeddings.embedDocuments(texts);
    expect(engine.asked.map(({ input }) => input)).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
    expect(vectors).toEqual(await Promise.all(texts.map((text) => embeddings.embedQuery(text))));
    expect(await embeddings.embedDocuments([])).toEqual([]);
  });

  it('tries again while the queue is full, and nothing else', async () => {
    vi.useFakeTimers();
    try {
      const { embeddings, engine } = setUp();
      engine.failures = [new LoraxError('QUEUE_FULL', 'busy')];
      const vector = embeddings.embedQuery('x');
      await vi.advanceTimersByTimeAsync(3000);
      expect(await vector).toHaveLength(32);
      expect(engine.asked).toHaveLength(2);
      engine.failures = [new LoraxError('ENGINE_LOST', 'gone')];
      await expect(embeddings.embedQuery('x')).rejects.toMatchObject({ code: 'ENGINE_LOST' });
      expect(engine.asked).toHaveLength(3);
    } finally {
      vi.useRealTimers();
    }
  });

  it('refuses wrong options and unknown adapters by name', async () => {
    const { engine } = setUp();
    const refused = (fields: object) => () => new LoraxEmbeddings({ engine, ...fields });
    expect(refused({ poling: 'mean' })).toThrow(/Did you mean "pooling"/);
    expect(refused({ pooling: 'max' })).toThrow(/options\.pooling must be/);
    expect(refused({ batchSize: 0 })).toThrow(/options\.batchSize/);
    await expect(setUp({ adapter: 'nobody' }).embeddings.embedQuery('x')).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    await expect(setUp().embeddings.embedQuery('')).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
    });
  });

  it('serves a store that searches by meaning', async () => {
    const { embeddings } = setUp();
    const store = new InMemoryStore({ index: { embeddings, dims: 32, fields: ['text'] } });
    await store.put(['faq'], 'order', { text: 'where is my order' });
    await store.put(['faq'], 'hours', { text: 'when do you open on Sunday' });
    const [best] = await store.search(['faq'], { query: 'my order is late', limit: 1 });
    expect(best?.key).toBe('order');
  });
});
