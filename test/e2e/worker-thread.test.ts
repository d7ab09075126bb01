// The built package with a real thread, and without native code: dist/ with another worker.mjs.
// What only a real process shows: who keeps it alive, and what a thread's death looks like.
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
let home: string;

beforeAll(() => {
  mkdirSync(join(root, '.cache'), { recursive: true });
  // Below the repository, so that imports of dependencies resolve.
  home = mkdtempSync(join(root, '.cache', 'thread-'));
  const dist = join(root, 'dist');
  for (const file of readdirSync(dist).filter((name) => /\.[mc]js$/.test(name))) {
    cpSync(join(dist, file), join(home, 'dist', file));
  }
  cpSync(join(root, 'test/fakes/thread-worker.mjs'), join(home, 'dist', 'worker.mjs'));
  mkdirSync(join(home, 'model'));
});

afterAll(() => rmSync(home, { recursive: true }));

interface Outcome {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  ms: number;
}

const PRELUDE = `
  const { createEngine, LoraxError } = await import('./dist/engine.mjs');
  const { createLorax } = await import('./dist/index.mjs');
  const engine = createEngine({ model: './model' });
  const ask = (content, extra) =>
    engine.generate({ messages: [{ role: 'user', content }], ...extra });
  const read = async (events) => {
    let text = '';
    for await (const event of events) if (event.type === 'delta') text += event.text;
    return text;
  };
`;

/** Runs a script in a process of its own; 10 s without an end count as a hang. */
async function script(body: string, { prelude = PRELUDE, ext = 'mjs', kill = 0 } = {}) {
  const file = join(home, `script-${Math.random().toString(36).slice(2)}.${ext}`);
  writeFileSync(file, prelude + body);
  const begun = performance.now();
  const child = spawn(process.execPath, [file], { cwd: home });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  if (kill > 0) setTimeout(() => child.kill('SIGINT'), kill);
  const hang = setTimeout(() => child.kill('SIGKILL'), 10_000);
  return new Promise<Outcome>((resolve) => {
    child.on('close', (code, signal) => {
      clearTimeout(hang);
      resolve({ code, signal, stdout, stderr, ms: performance.now() - begun });
    });
  });
}

const clean = { code: 0, signal: null, stderr: '' };

describe('a script that ends', () => {
  it('exits by itself, without dispose', async () => {
    const outcome = await script(`console.log(await read(ask('5')));`);
    expect(outcome).toMatchObject({ ...clean, stdout: ' 1 2 3 4 5\n' });
  });

  it('exits by itself when nothing was called', async () => {
    expect(await script(`createLorax({ model: './model' })('x');`)).toMatchObject(clean);
  });

  it('waits for a stream that is being read', async () => {
    const outcome = await script(`read(ask('20')).then((text) => console.log(text.length));`);
    expect(outcome).toMatchObject({ ...clean, stdout: '51\n' });
  });

  it('exits after break, after abort and after a failure', async () => {
    const outcome = await script(`
      let seen = 0;
      for await (const event of ask('100000')) if (++seen === 3) break;
      const controller = new AbortController();
      const aborted = read(ask('100000', { signal: controller.signal })).catch((e) => e.name);
      setTimeout(() => controller.abort(), 30);
      console.log(await aborted);
      console.log(await read(ask('throw')).catch((error) => error.code));
    `);
    expect(outcome).toMatchObject({ ...clean, stdout: 'AbortError\nWORKER_DIED\n' });
  });

  it('fires onUsage of a request that was left last', async () => {
    const outcome = await script(`
      const onUsage = (usage) => console.log(usage.outputTokens > 0);
      let seen = 0;
      for await (const event of ask('100000', { onUsage })) if (++seen === 3) break;
    `);
    expect(outcome).toMatchObject({ ...clean, stdout: 'true\n' });
  });

  it('exits after dispose, and at process.exit in the middle of a stream', async () => {
    expect(
      await script(`
        const open = read(ask('100000')).catch((error) => console.log(error.code));
        await new Promise((resolve) => setTimeout(resolve, 50));
        await engine.dispose();
        await open;
      `),
    ).toMatchObject({ ...clean, stdout: 'DISPOSED\n' });
    const exit = await script(`read(ask('100000')); setTimeout(() => process.exit(7), 100);`);
    expect(exit).toMatchObject({ code: 7, stderr: '' });
  });

  it('dies of an uncaught exception and of Ctrl-C as scripts do', async () => {
    const thrown = await script(`
      read(ask('100000'));
      setTimeout(() => { throw new Error('mine'); }, 100);
    `);
    expect(thrown.code).toBe(1);
    expect(thrown.stderr).toContain('Error: mine');
    const interrupted = await script(`read(ask('100000'));`, { kill: 1000 });
    expect(interrupted).toMatchObject({ signal: 'SIGINT', stderr: '' });
  });
});

describe("the thread's death", () => {
  it.each(['throw', 'exit'])('by %s fails every open stream within a second', async (how) => {
    const outcome = await script(`
      const streams = Array.from({ length: 8 }, () => read(ask('100000')));
      const ends = Promise.allSettled(streams);
      await read(ask('${how}')).catch((error) => console.log(error.code));
      const died = performance.now();
      const codes = new Set((await ends).map(({ reason }) => reason.code));
      console.log([...codes].join(), performance.now() - died < 1000);
      console.log(await read(ask('3')));
    `);
    expect(outcome).toMatchObject({
      ...clean,
      stdout: 'WORKER_DIED\nWORKER_DIED true\n 1 2 3\n',
    });
  });

  it('is explained by what was thrown', async () => {
    const outcome = await script(`
      await read(ask('throw')).catch((error) => console.log(error.message));
    `);
    expect(outcome.stdout).toContain('thrown in the worker');
  });
});

describe('two copies of the package', () => {
  it('share one engine between ESM and CJS', async () => {
    const outcome = await script(
      `
      const { createRequire } = require('node:module');
      const run = async () => {
        const { createLorax: esm } = await import('./dist/index.mjs');
        const { createLorax: cjs, LoraxError } = require('./dist/index.cjs');
        const { LoraxError: EsmError } = await import('./dist/index.mjs');
        const prompt = [{ role: 'user', content: [{ type: 'text', text: '2' }] }];
        const one = esm({ model: './model' });
        const two = cjs({ model: './model' });
        await one().doGenerate({ prompt });
        await two().doGenerate({ prompt });
        const [registry] = globalThis[Symbol.for('lorax-js.engines')].values();
        console.log(esm !== cjs, registry.engines.size);
        console.log(EsmError.isInstance(new LoraxError('DISPOSED', 'x')));
        await one.dispose();
        console.log((await two().doGenerate({ prompt })).content[0].text);
        await two.dispose();
        console.log(registry.engines.size);
      };
      run();
    `,
      { prelude: '', ext: 'cjs' },
    );
    expect(outcome).toMatchObject({ ...clean, stdout: 'true 1\ntrue\n 1 2\n0\n' });
  });
});

describe('engines', () => {
  it('start and stop fifty times, two at a time, and leave no thread', async () => {
    const outcome = await script(`
      for (let i = 0; i < 25; i++) {
        const pair = [createEngine({ model: './model' }), createEngine({ model: './model' })];
        await Promise.all(pair.map((one) => read(one.generate({
          messages: [{ role: 'user', content: '1' }],
        }))));
        await Promise.all(pair.map((one) => one.dispose()));
      }
      const left = process.getActiveResourcesInfo().filter((kind) => /Worker|MessagePort/.test(kind));
      console.log(left.length);
    `);
    expect(outcome).toMatchObject({ ...clean, stdout: '0\n' });
  });
});
