// The server as a process: what it says at its start, its probes, and its ends.
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { root, runCli, runJson } from '../../cli/run-cli.js';
import { demo, longRequest, readStream, startServe } from './serve-process.js';

const scratch = mkdtempSync(path.join(tmpdir(), 'lorax-serve-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

test('it says what every setting is and where from, and serves what they name', async () => {
  const config = path.join(scratch, 'serve.config.ts');
  const source = `import { defineConfig } from '${root}/src/server/serve-config.ts';
    export default defineConfig({ modelName: 'desk', adapters: { sailor: '${demo}/adapters/pirate' } });`;
  writeFileSync(config, source);
  const args = ['--config', config, '--adapter-folder', `${demo}/adapters`];
  const server = await startServe(args, { env: { LORAX_MAX_QUEUED: '77' } });
  const { settings } = server.log[0] as { settings: { key: string; origin: string }[] };
  const origins = Object.fromEntries(settings.map(({ key, origin }) => [key, origin]));
  expect(origins).toMatchObject({
    ...{ modelName: config, maxQueued: 'LORAX_MAX_QUEUED', adapterFolder: '--adapter-folder' },
    ...{ 'adapters.sailor': config, host: 'default' },
  });
  const list = (await (await fetch(`${server.url}/v1/models`)).json()) as {
    data: { id: string }[];
  };
  const names = readdirSync(`${demo}/adapters`);
  expect(list.data.map(({ id }) => id)).toEqual(['desk', ...[...names, 'sailor'].sort()]);
  expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: 'ok' });
  expect(await (await fetch(`${server.url}/ready`)).json()).toEqual({ ready: true });
  const answer = await server.post('/v1/chat/completions', {
    ...{ model: 'desk:sailor', max_tokens: 12 },
    messages: [{ role: 'user', content: 'A secret: the treasure is on Tuesday.' }],
  });
  expect(answer.status).toBe(200);
  const requestId = answer.headers.get('x-request-id');
  // One line for the generation, one for the request; no word of the prompt in any.
  await expect.poll(() => server.log.filter((line) => line.requestId === requestId).length).toBe(2);
  const generation = server.log.find(({ msg }) => msg === 'generation');
  expect(generation).toMatchObject({ requestId, adapters: ['sailor'], outcome: 'finished' });
  expect(JSON.stringify(server.log)).not.toContain('treasure');
});

test('what cannot be served is said with where it came from', async () => {
  const none = await runJson(['serve']);
  expect([none.code, none.json.error.data.field]).toEqual([2, 'model']);
  const wrong = await runCli(['serve', '--model', demo, '--port', '70000']);
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toContain('--port: options.port must be an integer');
  const missing = await runJson(['serve', '--model', path.join(scratch, 'nothing'), '--port', '0']);
  expect([missing.code, missing.json.error.code]).toEqual([1, 'MODEL_INVALID']);
});

test('SIGTERM under load: what was accepted ends whole, what comes is told to come again', async () => {
  const server = await startServe(['--adapter-folder', `${demo}/adapters`]);
  const models = ['demo', 'pirate', 'french', 'demo'];
  const streams = Array.from({ length: 12 }, (_, i) =>
    readStream(server.post('/v1/completions', longRequest(900, models[i % 4]))),
  );
  // All of them are admitted.
  await expect
    .poll(async () => {
      const text = await (await fetch(`${server.url}/metrics`)).text();
      return Number(/^vllm:num_requests_running\S* (\d+)/m.exec(text)?.[1]);
    })
    .toBe(12);
  server.child.kill('SIGTERM');
  await expect.poll(() => server.log.some(({ msg }) => msg === 'draining')).toBe(true);
  const begin = performance.now();
  const refused = await server.post('/v1/completions', longRequest(1));
  expect(performance.now() - begin).toBeLessThan(1000);
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
  expect((await fetch(`${server.url}/ready`)).status).toBe(503);
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
  const ends = await Promise.all(streams);
  for (const end of ends) {
    expect(end).toMatchObject({ status: 200, errors: [], done: true, torn: false });
    expect(end.deltas).toBeGreaterThan(1);
  }
  expect(await server.ended).toBe(0);
});

test('what does not end within the grace period gets an error event, and the process ends', async () => {
  const server = await startServe(['--grace-ms', '150']);
  const stream = readStream(server.post('/v1/completions', longRequest(4000)));
  await expect.poll(() => running(server.url)).toBe(1);
  server.child.kill('SIGTERM');
  const end = await stream;
  expect(end).toMatchObject({ status: 200, torn: false, done: true });
  expect(end.errors).toHaveLength(1);
  expect(await server.ended).toBe(1);
});

test('a worker that crashes costs the open streams an error event each, and is back by itself', async () => {
  const { cli, crash } = crashingPackage();
  const server = await startServe([], { cli });
  const streams = [4000, 3900].map((tokens) =>
    readStream(server.post('/v1/completions', longRequest(tokens))),
  );
  await expect.poll(() => running(server.url)).toBe(2);
  const crashedAt = performance.now();
  crash();
  for (const end of await Promise.all(streams)) {
    expect(end).toMatchObject({ status: 200, torn: false, done: true });
    expect(end.errors.map(({ code }) => code)).toEqual(['worker_died']);
  }
  // Nobody asked for it.
  const isBack = () => server.log.some(({ msg }) => msg === 'the engine is back');
  await expect.poll(isBack, { timeout: 10_000 }).toBe(true);
  expect(performance.now() - crashedAt).toBeLessThan(10_000);
  const after = await readStream(server.post('/v1/completions', longRequest(5)));
  expect(after).toMatchObject({ status: 200, errors: [], done: true });
  const text = await (await fetch(`${server.url}/metrics`)).text();
  expect(text).toMatch(/^lorax:engine_restarts_total 1$/m);
});

async function running(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^vllm:num_requests_running\S* (\d+)/m.exec(text)?.[1]);
}

/** The built package with a worker that does all it does, and throws when it is told to. */
function crashingPackage(): { cli: string; crash(): void } {
  mkdirSync(path.join(root, '.cache'), { recursive: true });
  // Below the repository, so that imports of dependencies resolve.
  const home = mkdtempSync(path.join(root, '.cache', 'crash-'));
  afterAll(() => rmSync(home, { recursive: true, force: true }));
  const dist = path.join(root, 'dist');
  for (const file of readdirSync(dist).filter((name) => name.endsWith('.mjs'))) {
    cpSync(path.join(dist, file), path.join(home, 'dist', file));
  }
  symlinkSync(path.join(root, 'build'), path.join(home, 'build'));
  const signal = path.join(home, 'crash-now');
  cpSync(path.join(dist, 'worker.mjs'), path.join(home, 'dist', 'real-worker.mjs'));
  writeFileSync(
    path.join(home, 'dist', 'worker.mjs'),
    `import { existsSync, rmSync } from 'node:fs';
     import real from './real-worker.mjs';
     export function serve(task) {
       real(task);
       setInterval(() => {
         if (!existsSync(${JSON.stringify(signal)})) return;
         rmSync(${JSON.stringify(signal)});
         throw new Error('told to crash');
       }, 10).unref();
     }
     export default serve;`,
  );
  return { cli: path.join(home, 'dist', 'cli.mjs'), crash: () => writeFileSync(signal, '') };
}
