// Requests for adapters of Zipf popularity, a number of them at a time.
import { randomNumbers } from '../../test/e2e/suites/random-adapter.mjs';

/** Names of adapters: the k-th most popular is asked for as 1/k. Never ends; the same for a seed. */
export function* zipf(names, seed) {
  const random = randomNumbers(seed);
  const weights = names.map((_, i) => 1 / (i + 1));
  const sum = weights.reduce((a, b) => a + b);
  for (;;) {
    let left = random() * sum;
    const index = weights.findIndex((weight) => (left -= weight) <= 0);
    yield names[index < 0 ? names.length - 1 : index];
  }
}

// Less than a block of tokens: nothing of it stays in pages.
const short = (_, i) => `${i}: where is my order?`;
// Each adapter's users share its instructions, which stay in pages that adapters could have.
const instructed = (adapter, i) =>
  `You answer customers of ${adapter}. ${`${adapter} sells shoes, hats and umbrellas. `.repeat(6)}` +
  `${i}: where is my order?`;

/** What is asked in request `i`, by users of how much of a pool: an adapter takes 3 to 4 pages. */
export const LOADS = {
  // A pool holds about 0.6 of 200 adapters, so both hold all of them.
  short: { promptOf: short, pages: 420, requests: 1500 },
  // Both together hold about 0.7 of them.
  'short, small pools': { promptOf: short, pages: 240, requests: 1000 },
  instructions: { promptOf: instructed, pages: 420, requests: 400 },
};

/** Resolves to the adapters that were asked for; an answer other than 200 throws. */
export async function runLoad({ url, adapters, promptOf, count, concurrency, tokens }) {
  const names = new Set();
  let next = 0;
  const client = async () => {
    while (next < count) {
      const i = next++;
      const model = adapters.next().value;
      names.add(model);
      const answer = await fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          ...{ model, prompt: promptOf(model, i), max_tokens: tokens },
          ...{ ignore_eos: true, temperature: 0 },
        }),
      });
      const text = await answer.text();
      if (answer.status !== 200) throw new Error(`${model}: ${answer.status}: ${text}`);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, client));
  return names;
}
