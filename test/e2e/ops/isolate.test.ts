// `serve --isolate`: the engine in a process of its own, killed under load, as a native crash would end it.
import { afterAll, expect, test } from 'vitest';
import { childrenOf, demo, isAlive, longRequest, readStream, startServe } from './serve-process.js';

const killed: number[] = [];
afterAll(() => {
  for (const pid of killed) expect(isAlive(pid)).toBe(false);
});

test('kill -9 of the engine under load: one error event each, and the next is served', async () => {
  const server = await startServe(['--isolate', '--adapter-folder', `${demo}/adapters`]);
  const [engine, ...others] = childrenOf(server) as [number];
  expect(others).toEqual([]);
  killed.push(engine);
  const streams = ['demo', 'pirate', 'french', 'demo', 'pirate'].map((model) =>
    readStream(server.post('/v1/completions', longRequest(3800, model))),
  );
  const running = async () =>
    Number(
      /^vllm:num_requests_running\S* (\d+)/m.exec(
        await (await fetch(`${server.url}/metrics`)).text(),
      )?.[1],
    );
  await expect.poll(running, { timeout: 10_000 }).toBe(streams.length);
  process.kill(engine, 'SIGKILL');
  for (const end of await Promise.all(streams)) {
    expect(end).toMatchObject({ status: 200, done: true, torn: false });
    expect(end.errors.map(({ code }) => code)).toEqual(['worker_died']);
  }
  // It is loaded again by itself, adapters too when they are asked for.
  const after = await readStream(server.post('/v1/completions', longRequest(20, 'pirate')));
  expect(after).toMatchObject({ status: 200, errors: [], done: true });
  await expect.poll(() => server.log.some(({ msg }) => msg === 'the engine is back')).toBe(true);
  const [successor] = childrenOf(server) as [number];
  expect(successor).not.toBe(engine);
  killed.push(successor);
  expect(server.child.exitCode).toBeNull();

  // Embeddings cross the pipe as they are.
  const embedded = await server.post('/v1/embeddings', { model: 'demo', input: ['a', 'b'] });
  const { data } = (await embedded.json()) as { data: { embedding: number[] }[] };
  expect(data.map(({ embedding }) => embedding.length)).toEqual([256, 256]);

  server.child.kill('SIGTERM');
  expect(await server.ended).toBe(0);
  await expect.poll(() => isAlive(successor)).toBe(false);
});

test('kill -9 of the server leaves no engine behind', async () => {
  const server = await startServe(['--isolate']);
  const [engine] = childrenOf(server) as [number];
  killed.push(engine);
  server.child.kill('SIGKILL');
  await expect.poll(() => isAlive(engine)).toBe(false);
});
