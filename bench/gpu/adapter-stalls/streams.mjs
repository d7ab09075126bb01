// Requests whose tokens are timed. Used by stalls.mjs and cold-start.mjs.

let numPrompts = 0;

/** Random ids: no two prompts begin alike. */
export function newPrompt(length) {
  let state = (++numPrompts * 2654435761) >>> 0;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 16 + ((state >>> 8) % 1024);
  });
}

/** Calls `onToken(ms since the request)` for each event with tokens. */
export async function timeTokens(engine, { adapter, prompt, tokens, onToken }) {
  const begin = performance.now();
  const sampling = { maxOutputTokens: tokens, temperature: 0, ignoreEos: true };
  const request = { promptTokens: newPrompt(prompt), adapter, sampling };
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta' && event.tokenIds.length > 0) onToken(performance.now() - begin);
  }
}

/** ms from the request to its first token. */
export async function timeToFirst(engine, adapter, prompt) {
  let firstMs = NaN;
  const onToken = (ms) => (firstMs = Number.isNaN(firstMs) ? ms : firstMs);
  await timeTokens(engine, { adapter, prompt, tokens: 1, onToken });
  return firstMs;
}

export function quantile(numbers, share) {
  const sorted = Float64Array.from(numbers).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

export const median = (numbers) => quantile(numbers, 0.5);

/** What `run` resolved to, and what the engine's counters grew by meanwhile. */
export async function counting(engine, run) {
  const before = (await engine.stats()).totals;
  const result = await run();
  const after = (await engine.stats()).totals;
  return {
    result,
    loads: after.adapterLoads - before.adapterLoads,
    hits: after.adapterHits - before.adapterHits,
    reads: (after.hostReads ?? 0) - (before.hostReads ?? 0),
  };
}
