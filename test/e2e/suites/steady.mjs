// "Steady": many requests with random aborts, ranks and lengths, over more adapters than the pool
// holds, on the built package and the demo model. Plain JavaScript: scripts/check-steady.mjs runs it
// for long, also on a GPU; steady.test.ts for a moment.
//
// A part of the requests is greedy and was answered alone before: its tokens must be those again.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { createEngine } from 'lorax-js/engine';

import { demo, randomNumbers, writeAdapter } from './random-adapter.mjs';

const RANKS = [1, 2, 4, 8, 12, 16, 24, 32, 64];
const LONGEST_PROMPT = 160;
// Many times what a page holds, so that sequences outgrow what was free when they came.
const LONGEST_OUTPUT = 192;

/** Everything that happened, and what should not have. */
class Tally {
  problems = [];
  ends = { finished: 0, aborted: 0, failed: 0 };
  leftAtOnce = 0;
  usages = 0;
  checked = 0;
  outputTokens = 0;
  longestGapMs = 0;
  #lastEvent = performance.now();

  problem(text) {
    if (this.problems.length < 20) this.problems.push(text);
  }

  /** Something came from the engine. */
  event() {
    const now = performance.now();
    this.longestGapMs = Math.max(this.longestGapMs, now - this.#lastEvent);
    this.#lastEvent = now;
  }

  restart() {
    this.#lastEvent = performance.now();
    this.longestGapMs = 0;
  }

  get silentMs() {
    return performance.now() - this.#lastEvent;
  }
}

/** How one request is left: after so many deltas, or never. */
const STAY = { how: 'stay', after: Infinity };
function drawAbort(random) {
  const draw = random();
  if (draw < 0.7) return STAY;
  if (draw < 0.75) return { how: 'signal', after: 0 };
  return { how: draw < 0.9 ? 'signal' : 'break', after: 1 + Math.floor(random() * 12) };
}

async function ask(engine, index, { request, golden, leave }, tally) {
  const controller = new AbortController();
  let [deltas, ends, usages] = [0, 0, 0];
  const tokens = [];
  const onUsage = () => {
    usages += 1;
    tally.usages += 1;
    if (usages > 1) tally.problem(`request ${index}: onUsage came ${usages} times`);
  };
  try {
    const events = engine.generate({ ...request, signal: controller.signal, onUsage });
    if (leave.after === 0) {
      tally.leftAtOnce += 1;
      controller.abort();
    }
    for await (const event of events) {
      tally.event();
      if (ends > 0) tally.problem(`request ${index}: ${event.type} after its end`);
      if (event.type === 'finish') ends += 1;
      if (event.type !== 'delta') continue;
      tokens.push(...event.tokenIds);
      if (++deltas !== leave.after) continue;
      if (leave.how === 'break') break;
      controller.abort();
    }
    if (ends === 1) {
      tally.ends.finished += 1;
      if (golden !== undefined && tokens.length !== request.sampling.maxOutputTokens) {
        tally.problem(`request ${index}: ${tokens.length} tokens`);
      }
    } else if (leave.how === 'break' && ends === 0) {
      tally.ends.aborted += 1;
    } else {
      tally.problem(`request ${index}: ${ends} finish events`);
    }
  } catch (error) {
    tally.event();
    if (error.name === 'AbortError' && leave.how === 'signal') {
      tally.ends.aborted += 1;
    } else {
      tally.ends.failed += 1;
      tally.problem(`request ${index}: ${error.code ?? error.name}: ${error.message}`);
    }
  }
  tally.outputTokens += tokens.length;
  if (golden === undefined) return;
  tally.checked += 1;
  if (String(tokens) !== String(golden.slice(0, tokens.length))) {
    tally.problem(`request ${index}: not the tokens it has alone, after ${deltas} deltas`);
  }
}

/** Until nothing runs, no page is on its way back and `more` is 0, or five seconds have passed. */
async function settled(engine, more = () => 0) {
  for (let i = 0; ; i++) {
    const stats = await engine.stats();
    const open = stats.requests.running + stats.requests.waiting + stats.pages.retiring;
    if (open + more(stats) === 0 || i === 500) return stats;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export async function runSteady({
  requests,
  device = 'auto',
  adapters: numAdapters = 200,
  memoryBytes = 12 << 20,
  concurrency = 160,
  goldens: numGoldens = 48,
  stallMs = 5_000,
  seed = 1,
  say = () => {},
}) {
  const random = randomNumbers(seed);
  const between = (low, high) => low + Math.floor(random() * (high - low + 1));
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-steady-'));
  const tally = new Tally();
  // On a GPU the promise that tokens do not depend on the batch is that of `deterministic`.
  const engine = createEngine({ model: demo, device, deterministic: true, memoryBytes });
  try {
    const { vocabSize, deviceDescription, numPages } = await engine.ready();
    const names = [];
    for (let i = 0; i < numAdapters; i++) {
      const directory = path.join(home, `a${i}`);
      writeAdapter(directory, { rank: RANKS[between(0, RANKS.length - 1)], seed: seed * 1000 + i });
      await engine.adapters.add(`a${i}`, directory);
      names.push(`a${i}`);
    }
    const prompts = Array.from({ length: 16 }, () =>
      Array.from({ length: between(1, LONGEST_PROMPT) }, () => between(3, vocabSize - 1)),
    );
    const greedy = { temperature: 0, ignoreEos: true };
    const goldens = [];
    for (let i = 0; i < numGoldens; i++) {
      const adapter = i % 8 === 0 ? {} : { adapter: names[between(0, numAdapters - 1)] };
      const request = { promptTokens: prompts[i % prompts.length], ...adapter };
      const tokens = [];
      const sampling = { ...greedy, maxOutputTokens: LONGEST_OUTPUT };
      for await (const event of engine.generate({ ...request, sampling })) {
        if (event.type === 'delta') tokens.push(...event.tokenIds);
      }
      goldens.push({ request, tokens });
    }
    if (new Set(goldens.map(({ tokens }) => String(tokens))).size < numGoldens * 0.8) {
      tally.problem('adapters and prompts do not matter, so equality shows nothing');
    }
    const before = await settled(engine);

    const onBase = goldens.filter(({ request }) => request.adapter === undefined);
    const draw = (index) => {
      // A stampede now and then: all on the base, long and at once, so that they outgrow the pool.
      // The others fight over the adapters' pages.
      const stampede = Math.floor(index / 40) % 8 === 0;
      const longest = random() < 0.1 ? LONGEST_OUTPUT : 24;
      const maxOutputTokens = stampede ? LONGEST_OUTPUT : between(1, longest);
      const leave = stampede && random() < 0.8 ? STAY : drawAbort(random);
      if (stampede || random() < 0.4) {
        const known = stampede ? onBase : goldens;
        const { request, tokens } = known[between(0, known.length - 1)];
        const sampling = { ...greedy, maxOutputTokens };
        // What is asked for twice is computed once, and then they would not outgrow it.
        const scope = stampede ? { cacheScope: `stampede ${index}` } : {};
        return { request: { ...request, sampling, ...scope }, golden: tokens, leave };
      }
      // The first ones are asked for more often than the last.
      const popular = Math.floor(numAdapters * random() * random());
      const adapter = random() < 0.1 ? {} : { adapter: names[popular] };
      const sampling = {
        ...{ maxOutputTokens, temperature: 1, seed: index, topP: random() < 0.5 ? 0.9 : 1 },
        ...(random() < 0.1 ? { logprobs: 3, repetitionPenalty: 1.1 } : {}),
      };
      const promptTokens = prompts[between(0, prompts.length - 1)].slice(
        0,
        between(1, LONGEST_PROMPT),
      );
      return { request: { promptTokens, ...adapter, sampling }, leave };
    };

    const begin = performance.now();
    tally.restart();
    let next = 0;
    let stop;
    const stopped = new Promise((_, reject) => (stop = reject));
    const watch = setInterval(() => {
      if (tally.silentMs > 10 * stallMs) stop(new Error(`no event for ${10 * stallMs} ms`));
    }, 1000);
    let earlyBytes = 0;
    const serve = async () => {
      while (next < requests) {
        const index = next++;
        if (index === requests >> 2) earlyBytes = process.memoryUsage().rss;
        if (index > 0 && index % 5000 === 0) say(`${index} requests`);
        await ask(engine, index, draw(index), tally);
      }
    };
    const all = Promise.all(Array.from({ length: Math.min(concurrency, requests) }, serve));
    try {
      await Promise.race([all, stopped]);
    } finally {
      clearInterval(watch);
    }
    const seconds = (performance.now() - begin) / 1e3;
    const grownBytes = process.memoryUsage().rss - earlyBytes;

    const { pages, totals } = await settled(engine);
    const since = (key) => totals[key] - before.totals[key];
    const expected = (what, is, should) => {
      if (is !== should) tally.problem(`${what}: ${is}, not ${should}`);
    };
    // What is left before it was sent never comes to the engine.
    const ended = since('finished') + since('aborted') + since('failed');
    if (ended > requests || ended < requests - tally.leftAtOnce) {
      tally.problem(`${ended} terminal events, ${tally.leftAtOnce} left at once`);
    }
    expected(
      'terminal events here',
      Object.values(tally.ends).reduce((a, b) => a + b),
      requests,
    );
    expected('onUsage calls', tally.usages, requests);
    expected('failed', since('failed') + tally.ends.failed, 0);
    expected('pages of KV', pages.kv, before.pages.kv);
    expected('pages free or cache', pages.free + pages.cold + pages.adapter, pages.total);
    for (const name of names) await engine.adapters.remove(name);
    const { pages: last } = await settled(engine, ({ pages }) => pages.adapter);
    expected('pages free or cold at the end', last.free + last.cold, last.total);
    // Else the pool was large enough, and nothing was tried.
    if (since('adapterEvictions') === 0) tally.problem('no adapter was evicted');
    if (since('prefixEvictions') === 0) tally.problem('no prefix was given up');
    if (since('prefixHits') === 0) tally.problem('no prefix was found');
    if (since('preemptions') === 0) tally.problem('no sequence was preempted');
    if (tally.longestGapMs > stallMs) tally.problem(`a stall of ${tally.longestGapMs} ms`);
    if (grownBytes > 256 << 20) tally.problem(`${grownBytes >> 20} MiB more memory at the end`);

    const { finished, aborted } = tally.ends;
    const summary =
      `STEADY ${requests} requests, ${numAdapters} adapters, ${numPages} pages, ` +
      `${seconds.toFixed(1)} s: ${finished} finished, ${aborted} aborted, ${tally.ends.failed} ` +
      `failed; ${tally.checked} compared; ${since('preemptions')} preemptions, ` +
      `${since('adapterLoads')} adapter loads, ${since('adapterEvictions')} evictions; ` +
      `${since('cachedTokens')} of ${since('promptTokens')} prompt tokens found, ` +
      `${since('prefixEvictions')} pages of prefixes given up; ` +
      `${Math.round(tally.outputTokens / seconds)} tokens/s; longest silence ` +
      `${Math.round(tally.longestGapMs)} ms; memory ${(grownBytes / 2 ** 20).toFixed(0)} MiB; ` +
      `${tally.problems.length} problems`;
    return { problems: tally.problems, summary, deviceDescription };
  } finally {
    await engine.dispose();
    fs.rmSync(home, { recursive: true, force: true });
  }
}
