// The client of the real clock: sends each request of a trace when it is due, whatever became of those
// before it, and notes when its tokens come. One async iterator per request, as users have it.
//
// The client shares no thread with the engine. That it is not what is measured shows in `client`: how late
// requests were sent, how late timers fired, and what a first token took beyond what the engine says.
import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

import { spread } from './measures.mjs';
import { EngineWatch } from './engine-watch.mjs';

const FIRST_TOKEN_ID = 16; // those below are special in most vocabularies

/** Runs `trace` on `engine`; adapter i is `names[i]`. */
export async function runTrace(engine, trace, names, { vocabSize }) {
  const prompts = trace.map((request, i) => promptOf(request.inputTokens, i, vocabSize));
  const between = [];
  const watch = await EngineWatch.start(engine);
  const delays = monitorEventLoopDelay({ resolution: 5 });
  delays.enable();
  const idle = performance.eventLoopUtilization();
  const begin = performance.now();
  const elapsed = () => (performance.now() - begin) / 1e3;

  const sent = [];
  for (const [i, request] of trace.entries()) {
    const wait = request.atSeconds - elapsed();
    if (wait > 0) await sleep(wait * 1e3);
    sent.push(send(engine, request, names[request.adapter], prompts[i], elapsed, between));
  }
  const requests = await Promise.all(sent);
  delays.disable();
  const { utilization } = performance.eventLoopUtilization(idle);
  const { states, steps, totals, host } = await watch.stop();
  const done = requests.filter((request) => request.failure === '');
  return {
    ...{ requests, between: spread(between), states, steps, totals, host },
    client: {
      utilization,
      // monitorEventLoopDelay counts a timer's own resolution too.
      loopDelayP99Ms: Math.max(0, delays.percentile(99) / 1e6 - 5),
      sentLateP99Ms: spread(requests.map((r) => (r.sentSeconds - r.atSeconds) * 1e3)).p99,
      overheadP99Ms: spread(done.map((request) => request.overheadMs)).p99,
    },
  };
}

async function send(engine, request, adapter, promptTokens, elapsed, between) {
  const { outputTokens } = request;
  const out = {
    ...request,
    sentSeconds: elapsed(),
    tokens: 0,
    firstSeconds: NaN,
    lastSeconds: NaN,
  };
  const sampling = { maxOutputTokens: outputTokens, temperature: 0, ignoreEos: true };
  let failure = 'it ended without a finish';
  let overheadMs = NaN;
  try {
    for await (const event of engine.generate({ promptTokens, adapter, sampling })) {
      if (event.type === 'delta') {
        const now = elapsed();
        // Tokens that come together come at once.
        if (out.tokens === 0) out.firstSeconds = now;
        else between.push(now - out.lastSeconds);
        for (let more = 1; more < event.tokenIds.length; more++) between.push(0);
        out.tokens += event.tokenIds.length;
        out.lastSeconds = now;
      } else if (event.type === 'finish') {
        const toFirstMs = (out.firstSeconds - out.sentSeconds) * 1e3;
        overheadMs = toFirstMs - event.timing.timeToFirstTokenMs;
        failure = out.tokens === outputTokens ? '' : event.rawReason;
      }
    }
  } catch (error) {
    failure = error.code ?? String(error);
  }
  return { ...out, failure, overheadMs };
}

/** Random ids, so that no two prompts begin alike. */
function promptOf(length, salt, vocabSize) {
  let state = (salt * 2654435761 + 1) >>> 0;
  return Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return FIRST_TOKEN_ID + Math.floor((state / 2 ** 32) * (vocabSize - FIRST_TOKEN_ID));
  });
}
