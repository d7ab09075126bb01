// The built worker in a real Piscina thread, over the fake addon: what only a thread can show.
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'tsdown';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeTinyModel } from './tiny-model.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

let scratch: string;

beforeAll(async () => {
  // Inside the repository, so that the script finds piscina.
  scratch = await mkdtemp(path.join(root, 'node_modules', '.lorax-worker-test-'));
  await writeTinyModel(path.join(scratch, 'model'));
  await writeFile(
    path.join(scratch, 'entry.ts'),
    `import { createFakeAddon } from ${JSON.stringify(path.join(root, 'test/fakes/fake-addon.ts'))};
     const { createEngine } = createFakeAddon();
     export { createEngine };`,
  );
  await build({
    entry: { addon: path.join(scratch, 'entry.ts') },
    format: 'cjs',
    outDir: scratch,
    config: false,
    clean: false,
    dts: false,
    logLevel: 'silent',
    tsconfig: path.join(root, 'tsconfig.json'),
  });
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** Runs `body` in a process of its own; it has `port`, `next()` (a message) and `print()`. */
async function script(body: string): Promise<{ lines: unknown[]; ms: number }> {
  const file = path.join(scratch, `script-${Math.random().toString(36).slice(2)}.mjs`);
  const options = {
    model: path.join(scratch, 'model'),
    ...{ device: 'auto', precision: 'auto', memoryBytes: 0, maxBatchTokens: 512, maxQueued: 10 },
    ...{
      memoryFraction: 0.9,
      hostMemoryBytes: 0,
      deterministic: false,
      cudaPluginPaths: [],
      hubModel: null,
      hub: {},
    },
    addonPaths: [path.join(scratch, 'absent.node'), path.join(scratch, 'addon.cjs')],
  };
  await writeFile(
    file,
    `import { MessageChannel } from 'node:worker_threads';
     import { Piscina } from 'piscina';
     const pool = new Piscina({
       filename: ${JSON.stringify(path.join(root, 'dist/worker.mjs'))}, name: 'serve',
       minThreads: 1, maxThreads: 1, idleTimeout: Infinity, atomics: 'disabled',
     });
     const { port1: port, port2 } = new MessageChannel();
     const inbox = []; let wake = () => {};
     port.on('message', (message) => { inbox.push(...message); wake(); });
     port.on('close', () => { inbox.push({ type: 'closed' }); wake(); });
     const next = async (...types) => {
       for (;;) {
         const at = inbox.findIndex((event) => types.includes(event.type));
         if (at >= 0) return inbox.splice(at, 1)[0];
         await new Promise((resolve) => { wake = resolve; });
       }
     };
     const print = (value) => console.log(JSON.stringify(value));
     const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
     const generate = (id, sampling) => port.postMessage([{ type: 'generate', id,
       prompt: { kind: 'text', text: 'hello' }, adapters: [], sampling }]);
     await pool.run({ port: port2, options: ${JSON.stringify(options)} }, { transferList: [port2] });
     ${body}`,
  );
  const start = performance.now();
  const { stdout, stderr } = await run(process.execPath, [file], { timeout: 20_000 });
  expect(stderr).toBe('');
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);
  return { lines, ms: performance.now() - start };
}

describe('the worker thread', () => {
  it('hears its port while no task is in flight, and lets the process end by itself', async () => {
    const { lines } = await script(`
      port.postMessage([{ type: 'ready', call: 1 }]);
      print(await next('result', 'error'));
      await pause(300);
      generate(7, { maxOutputTokens: 3 });
      print(await next('finish', 'failed'));
      port.unref();
    `);
    expect(lines).toMatchObject([
      { type: 'result', call: 1, value: { architecture: 'LlamaForCausalLM', contextTokens: 256 } },
      { type: 'finish', id: 7, rawReason: 'max-output-tokens', usage: { outputTokens: 3 } },
    ]);
  });

  it('does not hold the process even mid-stream, once the client lets go', async () => {
    const { lines, ms } = await script(`
      generate(1, { ignoreEos: true });
      print((await next('delta')).type);
      port.unref();
    `);
    expect(lines).toEqual(['delta']);
    expect(ms).toBeLessThan(15_000);
  });

  it('disposes, closes the port and leaves the thread fit for another engine', async () => {
    const { lines } = await script(`
      generate(1, { maxOutputTokens: 200, ignoreEos: true });
      await next('delta');
      port.postMessage([{ type: 'dispose', call: 2 }]);
      print((await next('result')).call);
      print((await next('closed')).type);
      await pool.destroy();
    `);
    expect(lines).toEqual([2, 'closed']);
  });
});
