// Many adapters through a small pool, on the built package and the demo model: every answer is the one
// that the same request gets alone. Plain JavaScript: scripts/check-adapters.mjs runs it in full;
// many-adapters.test.ts a small part of it.
//
// "Alone" is an engine of its own, one request at a time, with memory for all. Each adapter is asked for
// at least once in every `adapters` requests, and a part of them more often than the others.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { createEngine } from 'lorax-js/engine';

import { demo, randomNumbers, writeAdapter } from './random-adapter.mjs';

const PROMPTS = 16;
/** Of them, how many each adapter is asked with. */
const PROMPTS_EACH = 2;

async function tokensOf(engine, request) {
  const tokens = [];
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta') tokens.push(...event.tokenIds);
  }
  return tokens;
}

async function addAll(engine, directories) {
  let next = 0;
  const add = async () => {
    while (next < directories.length) {
      const index = next++;
      await engine.adapters.add(`a${index}`, directories[index]);
    }
  };
  await Promise.all([add(), add(), add(), add()]);
}

export async function runManyAdapters({
  adapters: numAdapters,
  resident,
  requests,
  rank = 4,
  concurrency = 64,
  device = 'auto',
  seed = 1,
  say = () => {},
}) {
  const random = randomNumbers(seed);
  const between = (low, high) => low + Math.floor(random() * (high - low + 1));
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-adapters-'));
  const problems = [];
  const engines = [];
  const start = (memory) => {
    const engine = createEngine({ model: demo, device, deterministic: true, ...memory });
    engines.push(engine);
    return engine;
  };
  try {
    const directories = Array.from({ length: numAdapters }, (_, i) => path.join(home, `a${i}`));
    // Of an even seed: on all seven projections, so that all are of one size.
    directories.forEach((directory, i) =>
      writeAdapter(directory, { rank, seed: 2 * (seed + i), alpha: 8 * rank }),
    );

    const alone = start({});
    const { vocabSize, pageBytes, deviceDescription } = await alone.ready();
    const prompts = Array.from({ length: PROMPTS }, () =>
      Array.from({ length: between(4, 40) }, () => between(3, vocabSize - 1)),
    );
    const requestOf = (adapter, variant) => ({
      adapter: `a${adapter}`,
      promptTokens: prompts[(adapter * PROMPTS_EACH + variant) % PROMPTS],
      sampling: {
        ...{ maxOutputTokens: 4 + ((adapter + variant) % 9), ignoreEos: true, seed: adapter },
        // One is greedy, the other drawn.
        temperature: variant === 0 ? 0 : 1,
      },
    });
    await addAll(alone, directories);
    const { bytes } = (await alone.adapters.list())[0];
    const expected = [];
    for (let i = 0; i < numAdapters; i++) {
      const answers = [];
      for (let variant = 0; variant < PROMPTS_EACH; variant++) {
        answers.push(await tokensOf(alone, requestOf(i, variant)));
      }
      expected.push(answers);
      if (i > 0 && i % 500 === 0) say(`${i} adapters have answered alone`);
    }
    await alone.dispose();
    if (new Set(expected.map(([first]) => String(first))).size < numAdapters * 0.5) {
      problems.push('adapters do not matter, so equality shows nothing');
    }

    const memoryBytes = resident * Math.ceil(bytes / pageBytes) * pageBytes;
    const engine = start({ memoryBytes });
    await engine.ready();
    await addAll(engine, directories);
    say(`${numAdapters} adapters are there`);
    const begin = performance.now();
    let [next, numTokens, mostResident] = [0, 0, 0];
    const asked = new Set();
    const serve = async () => {
      while (next < requests) {
        const index = next++;
        // Half goes round, the other half to the first ones more often.
        const popular = Math.floor(numAdapters * random() * random() * random());
        const adapter = index % 2 === 0 ? (index / 2) % numAdapters : popular;
        const variant = between(0, PROMPTS_EACH - 1);
        asked.add(adapter);
        try {
          const tokens = await tokensOf(engine, requestOf(adapter, variant));
          numTokens += tokens.length;
          if (String(tokens) !== String(expected[adapter][variant])) {
            problems.push(`request ${index}: a${adapter} answers otherwise than alone`);
          }
        } catch (error) {
          problems.push(`request ${index}: ${error.code ?? error.name}: ${error.message}`);
        }
        if (index % 100 === 0) {
          const { pages } = await engine.stats();
          mostResident = Math.max(mostResident, pages.adapter / Math.ceil(bytes / pageBytes));
        }
        if (index > 0 && index % 5000 === 0) say(`${index} requests`);
      }
    };
    await Promise.all(Array.from({ length: Math.min(concurrency, requests) }, serve));
    const seconds = (performance.now() - begin) / 1e3;
    const { totals, pages } = await engine.stats();
    if (asked.size < Math.min(numAdapters, requests / 2))
      problems.push('some were never asked for');
    if (mostResident > resident) problems.push(`${mostResident} adapters were in the pool`);
    if (totals.adapterEvictions === 0) problems.push('no adapter was evicted');
    if (totals.failed > 0) problems.push(`${totals.failed} failed`);
    if (pages.kv > 0 || pages.free + pages.cold + pages.adapter !== pages.total) {
      problems.push(`pages leaked: ${JSON.stringify(pages)}`);
    }
    const summary =
      `ADAPTERS ${requests} requests for ${asked.size} of ${numAdapters} adapters of rank ${rank}, ` +
      `a pool for ${resident}: ${seconds.toFixed(1)} s, ${Math.round(requests / seconds)} requests/s, ` +
      `${Math.round(numTokens / seconds)} tokens/s; ${totals.adapterLoads} loads, ` +
      `${totals.adapterEvictions} evictions, ${totals.adapterHits} hits, ` +
      `${totals.preemptions} preemptions; ${problems.length} problems`;
    return { problems: problems.slice(0, 20), summary, deviceDescription };
  } finally {
    await Promise.all(engines.map((engine) => engine.dispose()));
    fs.rmSync(home, { recursive: true, force: true });
  }
}
