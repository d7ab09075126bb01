// LoraxEmbeddings on the real engine: the vectors that engine.embed gives, as plain numbers.
import { createEngine } from 'lorax-js/engine';
import type { Engine } from 'lorax-js/engine';
import { LoraxEmbeddings } from 'lorax-js/langchain';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const texts = ['Where is my order 4821?', 'Do you ship to Norway?', 'Where is my order 1234?'];

let engine: Engine;

beforeAll(async () => {
  engine = createEngine({ model: demo, ...exactDevice });
  await engine.adapters.add('french', `${demo}/adapters/french`);
});
afterAll(() => engine.dispose());

const similarity = (a: number[] = [], b: number[] = []) =>
  a.reduce((sum, value, at) => sum + value * (b[at] ?? 0), 0);

describe('LoraxEmbeddings', () => {
  it.each(['base', 'french'])(
    '%s: equal to engine.embed, one by one and together',
    async (adapter) => {
      const embeddings = new LoraxEmbeddings({ engine, adapter, batchSize: 2 });
      const vectors = await embeddings.embedDocuments(texts);
      const expected = await engine.embed({ input: texts, adapter });
      expect(vectors).toEqual(expected.embeddings.map((vector) => Array.from(vector)));
      expect(await embeddings.embedQuery(texts[1] ?? '')).toEqual(vectors[1]);
      for (const vector of vectors) expect(Math.hypot(...vector)).toBeCloseTo(1, 4);
      expect(similarity(vectors[0], vectors[2])).toBeGreaterThan(
        similarity(vectors[0], vectors[1]),
      );
    },
  );

  it('differ between base and adapter, and between poolings', async () => {
    const vectors = await Promise.all(
      [{}, { adapter: 'french' }, { pooling: 'last' as const }].map((fields) =>
        new LoraxEmbeddings({ engine, ...fields }).embedQuery(texts[0] ?? ''),
      ),
    );
    const distinct = new Set(vectors.map((vector) => vector.join()));
    expect(distinct.size).toBe(3);
  });
});
