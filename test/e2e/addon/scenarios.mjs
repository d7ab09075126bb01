// What test/e2e/addon-lifecycle.test.ts runs in child processes, by name:
//   node scenarios.mjs <scenario> <folder>
// A scenario prints 'streaming' once tokens flow; the test looks at what follows and how it ends.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

import { loadAddon, sampling, startEngine, tinyAdapter, tinyConfig } from './tiny-model.mjs';

const self = fileURLToPath(import.meta.url);
const [scenario, folder] = isMainThread
  ? process.argv.slice(2)
  : [workerData.role, workerData.folder];
const prompt = [5, 6, 7, 8];
const exits = new Map();
const say = (text) => process.stdout.write(`${text}\n`);

function startWorker(role) {
  const worker = new Worker(self, { workerData: { role, folder } });
  // Listened for from the start: it may be over when we get to ask.
  exits.set(worker, new Promise((resolve) => worker.once('exit', resolve)));
  return worker;
}

const message = (worker) => new Promise((resolve) => worker.once('message', resolve));
const exit = (worker) => exits.get(worker);

/** A worker whose engine is in the middle of a stream. */
async function streamingWorker(role = 'worker:stream') {
  const worker = startWorker(role);
  await message(worker);
  return worker;
}

async function streamingEngine() {
  const started = await startEngine(tinyConfig(folder), { prompt });
  await started.log.streaming(1);
  return started;
}

/** -1 = base. */
function usesOf(handle) {
  return handle < 0 ? [] : [{ handle, weight: 1 }];
}

async function generate(started, id, options = {}) {
  const { adapter = -1, adapters = usesOf(adapter), tokens = prompt, ...rest } = options;
  started.engine.submit(
    id,
    Int32Array.from(tokens),
    adapters,
    sampling({ maxOutputTokens: 12, ...rest }),
  );
  return (await started.log.ended(id)).tokens;
}

const scenarios = {
  // ---- in worker threads ----

  async 'worker:stream'() {
    await streamingEngine();
    parentPort.postMessage('streaming');
    parentPort.on('message', () => {}); // stay
  },
  async 'worker:load'() {
    loadAddon(); // so that what follows is not about finding it
    const loading = startEngine(tinyConfig(folder));
    parentPort.postMessage('loading');
    parentPort.on('message', () => {});
    await loading;
  },
  async 'worker:exit'() {
    await streamingEngine();
    parentPort.postMessage('streaming');
    setTimeout(() => process.exit(5), 20);
  },
  async 'worker:throw'() {
    await streamingEngine();
    parentPort.postMessage('streaming');
    setTimeout(() => {
      throw new Error('thrown in the worker');
    }, 20);
  },
  async 'worker:natural'() {
    await streamingEngine();
    parentPort.postMessage('streaming');
  },
  async 'worker:generate'() {
    const started = await startEngine(tinyConfig(folder));
    const tokens = await generate(started, 1);
    await started.engine.stop();
    parentPort.postMessage(tokens);
  },

  // ---- in the main thread ----

  async 'generate-in-worker'() {
    const worker = startWorker('worker:generate');
    const tokens = await message(worker);
    const code = await exit(worker);
    const here = await startEngine(tinyConfig(folder));
    const same = (await generate(here, 1)).join() === tokens.join();
    await here.engine.stop();
    say(JSON.stringify({ count: tokens.length, same, code }));
  },
  async terminate() {
    for (let i = 0; i < 3; ++i) {
      const worker = await streamingWorker();
      await worker.terminate();
    }
    say('terminated');
  },
  async 'terminate-while-loading'() {
    for (let i = 0; i < 5; ++i) {
      const worker = startWorker('worker:load');
      await message(worker);
      await new Promise((resolve) => setTimeout(resolve, i));
      await worker.terminate();
    }
    say('terminated');
  },
  async 'worker-exits'() {
    const worker = await streamingWorker('worker:exit');
    say(`exit ${await exit(worker)}`);
  },
  async 'worker-throws'() {
    const worker = await streamingWorker('worker:throw');
    const error = await new Promise((resolve) => worker.once('error', resolve));
    say(`error ${error.message}, exit ${await exit(worker)}`);
  },
  async 'worker-ends'() {
    const worker = await streamingWorker('worker:natural');
    say(`exit ${await exit(worker)}`);
  },
  async 'natural-end'() {
    await streamingEngine();
    say('streaming');
  },
  async 'process-exit'() {
    await streamingEngine();
    say('streaming');
    process.exit(7);
  },
  async 'process-exit-in-callback'() {
    const started = await startEngine(tinyConfig(folder), { prompt });
    await started.log.until(1, (request) => {
      if (request.tokens.length > 3) process.exit(7);
      return false;
    });
  },
  async 'process-exit-while-loading'() {
    loadAddon();
    void startEngine(tinyConfig(folder));
    say('loading');
    process.exit(7);
  },
  async 'process-exit-with-workers'() {
    await streamingWorker();
    await streamingWorker();
    say('streaming');
    process.exit(7);
  },
  async uncaught() {
    await streamingEngine();
    say('streaming');
    setTimeout(() => {
      throw new Error('thrown in a timer');
    }, 5);
  },
  async 'uncaught-in-callback'() {
    const engine = await loadAddon().createEngine(
      tinyConfig(folder),
      () => {
        throw new Error('thrown in onEvents');
      },
      () => {},
    );
    engine.submit(1, Int32Array.from(prompt), [], sampling());
    setInterval(() => {}, 1000);
  },
  async stream() {
    await streamingEngine();
    say('streaming');
    setInterval(() => {}, 1000);
  },
  async 'stream-in-worker'() {
    await streamingWorker();
    say('streaming');
  },
  async 'two-engines'() {
    const [first, second] = await Promise.all([
      startEngine(tinyConfig(folder)),
      startEngine(tinyConfig(folder)),
    ]);
    const [a, b] = await Promise.all([generate(first, 1), generate(second, 1)]);
    await first.engine.stop();
    const c = await generate(second, 2);
    await second.engine.stop();
    say(JSON.stringify({ same: a.join() === b.join() && b.join() === c.join(), count: a.length }));
  },
  async restarts() {
    const rss = [];
    for (let i = 0; i < 50; ++i) {
      const started = await startEngine(tinyConfig(folder));
      await generate(started, 1, { maxOutputTokens: 3 });
      await started.engine.stop();
      globalThis.gc();
      rss.push(process.memoryUsage().rss);
    }
    const threads = (await import('node:fs')).readdirSync('/proc/self/task').length;
    say(JSON.stringify({ early: rss[9], late: rss[49], threads }));
  },
  async 'worker-restarts'() {
    const rss = [];
    for (let i = 0; i < 20; ++i) {
      const worker = await streamingWorker();
      await worker.terminate();
      globalThis.gc();
      rss.push(process.memoryUsage().rss);
    }
    say(JSON.stringify({ early: rss[6], late: rss[19] }));
  },
  async 'stop-mid-stream'() {
    const { engine, log } = await streamingEngine();
    await Promise.all([engine.stop(), engine.stop()]);
    await engine.stop();
    const code = (call) => {
      try {
        call();
        return 'none';
      } catch (error) {
        return error.code;
      }
    };
    say(
      JSON.stringify({
        end: log.of(1).end?.failure.code,
        submit: code(() => engine.submit(2, new Int32Array([1]), [], sampling())),
        stats: code(() => engine.stats()),
        cancel: code(() => engine.cancel(1)),
        info: code(() => engine.info()),
        addAdapter: await engine.addAdapter(tinyAdapter(folder)).catch((error) => error.code),
      }),
    );
  },
  async adapters() {
    const started = await startEngine(tinyConfig(folder));
    const { engine } = started;
    const specs = [1, 2, 3, 4].map((seed) => tinyAdapter(folder, { seed, rank: 2 * seed }));
    const handles = await Promise.all(specs.map((spec) => engine.addAdapter(spec)));
    const bad = structuredClone(specs[0]);
    // Module 3's A: after its own five numbers, and 5 + 2 * 6 of each module before.
    bad.modules.numbers[3 * 17 + 5 + 4] = 1e9;
    const error = await engine.addAdapter(bad).catch((e) => e);
    const alone = [];
    for (const [i, adapter] of [-1, ...handles].entries()) {
      alone.push(await generate(started, 10 + i, { adapter, logprobs: 2 }));
    }
    const together = await Promise.all(
      [-1, ...handles].map((adapter, i) => generate(started, 20 + i, { adapter, logprobs: 2 })),
    );
    engine.removeAdapter(handles[0]);
    engine.submit(
      30,
      Int32Array.from(prompt),
      usesOf(handles[0]),
      sampling({ maxOutputTokens: 2 }),
    );
    const refused = await started.log.ended(30);
    say(
      JSON.stringify({
        distinct: new Set(alone.map(String)).size,
        same: together.map(String).join('|') === alone.map(String).join('|'),
        logprobs: started.log.of(20).logprobs.length,
        code: error.code,
        named:
          error.data.file === specs[0].files[0] &&
          error.data.tensor === 'layers.0.self_attn.o_proj.lora_A.weight',
        refused: refused.end.failure.code,
        listed: engine.adapters().length,
        finished: engine.stats().finished,
      }),
    );
    await engine.stop();
  },
  async 'adapters-while-stopping'() {
    const { engine } = await streamingEngine();
    const adding = [1, 2, 3, 4, 5, 6].map((seed) =>
      engine.addAdapter(tinyAdapter(folder, { seed })).catch((error) => error.code),
    );
    await engine.stop();
    const results = await Promise.all(adding);
    say(results.every((r) => typeof r === 'number' || r === 'DISPOSED') ? 'settled' : `${results}`);
  },
};

await scenarios[scenario]();
