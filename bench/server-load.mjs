// The HTTP server under load, on the CPU and the demo model: this process serves, a second one asks.
//
//     node bench/server-load.mjs [--streams 500] [--seconds 60] [--overload-seconds 10] [--csv FILE]
//
// 1. `streams` streams at once for `seconds`: every event is checked to be whole and every stream to be
//    complete; this process's memory and event-loop delay are sampled each second.
// 2. A reader that stops reading, beside others: what it costs here.
// 3. Closed loops of three sizes (the largest keeps a few waiting, so that every place is taken at once) and ten
//    times what they reached (open loop), in turns, for several rounds: what is still served, against the peak,
//    which is the best of the loops; and how soon the rest hears 429 or 503 with retry-after. Of each kind the
//    median of the rounds counts: the best of several noisy figures would be above what any of them stands for.
//    While requests are refused, several tokens come in one event (src/server/pace.ts): how many is told.
//
// Event-loop delay is what perf_hooks measures with a timer of 1 ms, that millisecond taken off. The engine's
// threads, the client and whoever else uses the machine take the processor away from the event loop as well;
// so a process that does nothing is measured at the same time, as the control.
import { fork } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createEngine } from '../dist/engine.mjs'; // bench/ is a package of its own: no self-reference
import { createServer, serveOnNode } from '../dist/server.mjs';
import { commitOf, describeMachine } from './machine.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const today = new Date().toISOString().slice(0, 10);
const { values } = parseArgs({
  options: {
    streams: { type: 'string', default: '500' },
    seconds: { type: 'string', default: '60' },
    'overload-seconds': { type: 'string', default: '10' },
    csv: { type: 'string', default: path.join(root, `bench/results/server-load-cpu-${today}.csv`) },
  },
});
const [streams, seconds, overloadSeconds] = [
  ...[values.streams, values.seconds, values['overload-seconds']].map(Number),
];
const OVERLOAD_TOKENS = 200;
const ROUNDS = 6;
const LOOPS = [128, 256, 264];

const demo = path.join(root, 'models/demo');
const rows = [];
const machine = `${describeMachine()}; commit ${commitOf(root)}`;
console.log(machine);

async function serving(serverOptions, work) {
  const engine = createEngine({ model: demo, device: 'cpu' });
  for (const name of ['pirate', 'french', 'json']) {
    await engine.adapters.add(name, `${demo}/adapters/${name}`);
  }
  const node = await serveOnNode(createServer({ engine, ...serverOptions }), { port: 0 });
  const sockets = new Set();
  node.server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const client = fork(fileURLToPath(new URL('./server-load/client.mjs', import.meta.url)));
  const tell = (command) =>
    new Promise((resolve) => {
      client.once('message', resolve);
      client.send({ port: node.port, ...command });
    });
  try {
    return await work({ engine, node, sockets, tell });
  } finally {
    client.kill();
    await node.close();
    await engine.dispose();
  }
}

const idle = fork(fileURLToPath(new URL('./server-load/idle-process.mjs', import.meta.url)));
const control = {
  start: () => idle.send('start'),
  stop: () =>
    new Promise((resolve) => {
      idle.once('message', resolve);
      idle.send('stop');
    }),
};

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');
const collectedHeap = () => {
  collect();
  return process.memoryUsage().heapUsed;
};

/** Samples of this process each second until stopped. */
function sampling(phase, engine) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const whole = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  whole.enable();
  const samples = [];
  const beganAt = performance.now();
  const timer = setInterval(async () => {
    const { rss, heapUsed } = process.memoryUsage();
    const p99 = delay.percentile(99) / 1e6 - 1;
    delay.reset();
    const { totals, requests } = await engine.stats();
    const second = (performance.now() - beganAt) / 1000;
    const sample = { phase, second, rss, heapUsed, p99, running: requests.running };
    samples.push({ ...sample, waiting: requests.waiting, tokens: totals.outputTokens });
  }, 1000);
  return () => {
    clearInterval(timer);
    delay.disable();
    whole.disable();
    for (const each of samples) rows.push(each);
    return { samples, p99: whole.percentile(99) / 1e6 - 1, max: whole.max / 1e6 - 1 };
  };
}

const percentile = (all, p) => [...all].sort((a, b) => a - b)[Math.floor((all.length - 1) * p)];
const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
const median = (all) => {
  const sorted = [...all].sort((a, b) => a - b);
  const at = (all.length - 1) / 2;
  return (sorted[Math.floor(at)] + sorted[Math.ceil(at)]) / 2;
};

await serving({}, async ({ engine, node, sockets, tell }) => {
  await tell({ command: 'streams', concurrency: streams, seconds: 5, tokens: 40 });
  const heapBefore = collectedHeap();
  const stop = sampling('streams', engine);
  control.start();
  const results = await tell({ command: 'streams', concurrency: streams, seconds, tokens: 40 });
  const { samples, p99, max } = stop();
  const idleDelay = await control.stop();
  const heapAfter = collectedHeap();
  const errors = results.filter(({ error, status }) => error !== undefined || status !== 200);
  const tokens = results.reduce((sum, each) => sum + (each.tokens ?? 0), 0);
  const third = Math.floor(samples.length / 3);
  const [first, last] = [samples.slice(third, 2 * third), samples.slice(-third)];
  const growth = (key) => median(last.map((s) => s[key])) - median(first.map((s) => s[key]));
  console.log(
    `streams: ${streams} at once for ${seconds} s: ${results.length} streams, ` +
      `${(tokens / seconds).toFixed(0)} tokens/s, ${errors.length} errors`,
  );
  for (const { error, status } of errors.slice(0, 3)) console.log(`  ${error ?? status}`);
  console.log(
    `  event-loop delay p99 ${p99.toFixed(1)} ms, max ${max.toFixed(1)} ms; of an idle process beside it ` +
      `p99 ${idleDelay.p99.toFixed(1)} ms, max ${idleDelay.max.toFixed(1)} ms`,
  );
  console.log(
    `  memory, last third against the one before: heap ${mib(growth('heapUsed'))} MiB, ` +
      `rss ${mib(growth('rss'))} MiB (rss ${mib(samples.at(-1).rss)} MiB); heap after a collection ` +
      `${mib(heapBefore)} MiB before and ${mib(heapAfter)} MiB after all of it`,
  );

  // A reader that asks for as much as there can be and reads nothing.
  const body = JSON.stringify({
    ...{ model: 'demo', messages: [{ role: 'user', content: 'Hello' }], stream: true },
    // With more to say than the system's own buffers hold.
    ...{ max_tokens: 4000, ignore_eos: true, logprobs: true, top_logprobs: 20 },
  });
  const socket = connect(node.port, '127.0.0.1');
  socket.pause();
  socket.write(
    'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n' +
      `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  const beside = tell({ command: 'streams', concurrency: 20, seconds: 10, tokens: 40 });
  let most = 0;
  // Until the system's own buffers are full, and for as long again.
  for (let i = 0, full = Infinity; i < Math.min(2 * full, 600); i++) {
    if (most > 0) full = Math.min(full, Math.max(i, 50));
    await sleep(100);
    for (const each of sockets) most = Math.max(most, each.writableLength);
  }
  const besideErrors = (await beside).filter(({ status }) => status !== 200).length;
  socket.destroy();
  console.log(
    `stalled reader: at most ${(most / 1024).toFixed(1)} KiB buffered for it in this process; ` +
      `${besideErrors} errors beside it`,
  );
  rows.push({ phase: 'stalled reader', second: 10, bufferedBytes: most });
});

await serving({ maxWaiting: 16 }, async ({ engine, tell }) => {
  // While requests come: what they begin and end with says nothing of a server that goes on. All that
  // was begun is served to its end, so every token counts.
  const rateOf = (samples) => {
    const [first, last] = [samples[2], samples[overloadSeconds - 1]];
    return (last.tokens - first.tokens) / (last.second - first.second);
  };
  // One after the other: at once most would be refused, and a loop has no overload.
  const closed = (concurrency, seconds) =>
    tell({ ...{ command: 'streams', concurrency, seconds }, tokens: OVERLOAD_TOKENS, gapMs: 5 });
  await closed(32, 3);
  const peaks = new Map(LOOPS.map((concurrency) => [concurrency, []]));
  const goodputs = [];
  const waits = [];
  let refusedInLoops = 0;
  const counts = { closed: { tokens: 0, deltas: 0 }, overload: { tokens: 0, deltas: 0 } };
  const count = (kind, results) => {
    for (const { tokens = 0, deltas = 0 } of results) {
      counts[kind].tokens += tokens;
      counts[kind].deltas += deltas;
    }
  };
  let without = 0;
  const peak = () => Math.max(...[...peaks.values()].map(median));
  // In turns: a slow minute of the machine is one of all.
  for (let round = 1; round <= ROUNDS; round++) {
    for (const concurrency of LOOPS) {
      const stop = sampling(`closed loop of ${concurrency}`, engine);
      const results = await closed(concurrency, overloadSeconds);
      count('closed', results);
      refusedInLoops += results.filter(({ status }) => status !== 200).length;
      peaks.get(concurrency).push(rateOf(stop().samples));
    }
    const rate = (10 * peak()) / OVERLOAD_TOKENS;
    const stopOverload = sampling('overload', engine);
    const results = await tell({
      ...{ command: 'arrivals', rate, seconds: overloadSeconds, tokens: OVERLOAD_TOKENS },
    });
    goodputs.push(rateOf(stopOverload().samples));
    count('overload', results);
    const served = results.filter(({ status }) => status === 200);
    const refused = results.filter(({ status }) => status === 429 || status === 503);
    const others = results.length - served.length - refused.length;
    waits.push(...refused.map(({ ms }) => ms));
    without += refused.filter(({ retryAfter }) => retryAfter === undefined).length;
    const loops = LOOPS.map((each) => `${each}: ${peaks.get(each).at(-1).toFixed(0)}`).join(', ');
    console.log(
      `overload, round ${round}: closed loops of ${loops} tokens/s; at ${rate.toFixed(0)} requests/s ` +
        `${results.length} requests, ${served.length} served, ${refused.length} refused, ` +
        `${others} neither; goodput ${goodputs.at(-1).toFixed(0)} tokens/s`,
    );
    for (const { status, ms, atMs, tokens } of results) {
      rows.push({
        phase: `overload request of round ${round}`,
        second: atMs / 1000,
        status,
        ms,
        tokens,
      });
    }
  }
  console.log(
    `overload: goodput ${median(goodputs).toFixed(0)} tokens/s = ` +
      `${(median(goodputs) / peak()).toFixed(2)} of the peak of ${peak().toFixed(0)} (medians of ${ROUNDS} rounds)`,
  );
  const perEvent = ({ tokens, deltas }) => (tokens / deltas).toFixed(2);
  console.log(
    `  tokens of a stream in an event: ${perEvent(counts.overload)}; in the closed loops ${perEvent(counts.closed)}, ` +
      `where ${refusedInLoops} were refused`,
  );
  console.log(
    `  refusals: median ${median(waits)?.toFixed(1)} ms, p99 ${percentile(waits, 0.99)?.toFixed(1)} ms, ` +
      `max ${percentile(waits, 1)?.toFixed(1)} ms, ${without} without retry-after`,
  );
});

idle.kill();
const columns = [
  ...['phase', 'second', 'running', 'waiting', 'tokens', 'rss', 'heapUsed', 'p99'],
  ...['bufferedBytes', 'status', 'ms'],
];
const shown = (value) => (typeof value === 'number' ? Number(value.toFixed(3)) : (value ?? ''));
const lines = rows.map((row) => columns.map((column) => shown(row[column])).join(','));
mkdirSync(path.dirname(values.csv), { recursive: true });
writeFileSync(values.csv, `# ${machine}\n${columns.join(',')}\n${lines.join('\n')}\n`);
console.log(`bench: ${values.csv}`);
