/**
 * Embeddings without a model: each word has a random direction of its own, the same always, so texts
 * that share words lie near each other, and adapters lie apart. Called by fake-engine.ts.
 */
import { createHash } from 'node:crypto';
import type { EmbedSettings } from '../embed-request.js';

/** What fake embeddings have for a model's hidden size. */
const DIMENSIONS = 32;

/** `words` is not empty. */
export function fakeEmbedding(
  words: string[],
  adapter: string,
  { pooling, normalize }: EmbedSettings,
): Float32Array {
  const pooled = { mean: words, last: words.slice(-1), cls: words.slice(0, 1) }[pooling];
  const sum = new Float32Array(DIMENSIONS);
  for (const word of pooled) {
    const bytes = createHash('sha256').update(`${adapter}\n${word.trim()}`).digest();
    for (let i = 0; i < DIMENSIONS; i++) sum[i]! += (bytes[i]! - 127.5) / 127.5;
  }
  const length = normalize ? Math.hypot(...sum) : pooled.length;
  return sum.map((value) => value / length);
}
