/**
 * examples/nextjs-chat as its users run it: built, in development, as standalone output. Run by
 * scripts/test-browsers.mjs, which installs a copy of it from a packed lorax-js and looks for a browser.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeBrowser, isIdle } from './browser-suite.js';
import { NextServer } from './next-server.js';
import { writeSlowModel } from './slow-demo-model.js';

const app = process.env.LORAX_TEST_NEXT as string;
const next = path.join(app, 'node_modules/next/dist/bin/next');
const work = path.dirname(app);
const model = path.join(work, 'slow-demo');
const deployed = path.join(work, 'deployed');
const env = { LORAX_MODEL: model, NEXT_TELEMETRY_DISABLED: '1' };

const QUESTION = 'Where is my order 4821?';

beforeAll(() => {
  writeSlowModel(fileURLToPath(new URL('../../models/demo', import.meta.url)), model, 60);
});

describe('next build', () => {
  test('touches no model: it builds where there is none', { timeout: 180_000 }, async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [next, 'build'], {
      cwd: app,
      env: { ...process.env, ...env, NODE_ENV: undefined, LORAX_MODEL: '/no/such/model' },
    });
    expect(stdout).toMatch(/ƒ \/api\/chat/);
    // As into a container: elsewhere, so that nothing is found in a folder further up.
    cpSync(path.join(app, '.next/standalone'), deployed, {
      recursive: true,
      verbatimSymlinks: true,
    });
    cpSync(path.join(app, '.next/static'), path.join(deployed, '.next/static'), {
      recursive: true,
    });
  });

  const platform = `@lorax-js/${process.platform}-${process.arch}`;
  test.each([
    'lorax-js/dist/worker.mjs',
    `${platform}/lorax.node`,
    `${platform}-cuda/lorax_cuda.so`,
  ])('the standalone output holds %s as the installed packages do', (file) => {
    const read = (root: string) => {
      const found = path.join(root, 'node_modules', file);
      return existsSync(found) ? readFileSync(found).toString('base64') : 'not there';
    };
    // No CUDA backend is what most machines that test this have built.
    if (!file.endsWith('lorax_cuda.so')) expect(read(app)).not.toBe('not there');
    expect(read(deployed) === read(app)).toBe(true);
  });
});

describe('next dev', () => {
  const running = serve(app, [next, 'dev', '--port', 'PORT']);

  describeBrowser(running);

  test('5 hot reloads leave one engine', { timeout: 180_000 }, async () => {
    const server = running();
    const file = path.join(app, 'lib/lorax.ts');
    const source = readFileSync(file, 'utf8');
    const { finished: before } = await server.status();
    try {
      for (let edits = 1; edits <= 5; edits++) {
        // The list of adapters becomes one shorter: it shows which version of the file answers.
        const edited = source.replace(/(ADAPTERS = \[.*\])/, `$1.slice(${edits})`);
        let saves = 0;
        const adapters = async () => {
          // Next's watcher may miss a file that is saved while it still compiles: saved again, as one would.
          if (saves++ % 20 === 0) writeFileSync(file, edited);
          return (await server.status()).adapters.length;
        };
        await expect.poll(adapters, { timeout: 60_000, interval: 200 }).toBe(7 - edits);
        expect(await (await server.ask('pirate', QUESTION)).text()).toContain('[DONE]');
        expect(server.numEngines()).toBe(1);
        // And it is the same one: it remembers all that it has finished.
        expect((await server.status()).finished).toBe(before + edits);
      }
    } finally {
      writeFileSync(file, source);
    }
  });
});

describe('standalone output', () => {
  const running = serve(deployed, ['server.js']);

  describeBrowser(running);

  test('an unknown adapter is an error of that answer', async () => {
    const server = running();
    const body = await (await server.ask('../../etc', QUESTION)).text();
    expect(body).toMatch(/"type":"error","errorText":".*\.\.\/\.\.\/etc.* is no adapter name/);
    expect(await (await server.ask('base', QUESTION)).text()).toContain('"finishReason":"stop"');
  });

  test('one engine, idle in the end', async () => {
    expect(running().numEngines()).toBe(1);
    await expect.poll(async () => isIdle(await running().status())).toBe(true);
  });

  test('on SIGTERM answers that are under way finish, and the process ends', async () => {
    const server = running();
    const responses = await Promise.all(
      ['base', 'pirate'].map((name) => server.ask(name, QUESTION)),
    );
    const bodies = responses.map(async (response) => {
      let text = '';
      let atTermination: string | undefined;
      for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
        text += piece;
        if (!text.includes('text-delta')) continue;
        atTermination ??= text;
        exitCode ??= server.terminate();
      }
      return { text, atTermination };
    });
    let exitCode: Promise<number | null> | undefined;
    for (const { text, atTermination } of await Promise.all(bodies)) {
      expect(atTermination).not.toContain('"finish"');
      expect(text).toMatch(/"type":"finish".*\[DONE\]/s);
    }
    // 128 + SIGTERM: Next's own way to end.
    expect([0, 143]).toContain(await exitCode);
  });
});

/** Starts a server before the tests of this block and ends it after them. */
function serve(cwd: string, args: string[]): () => NextServer {
  let server: NextServer | undefined;
  beforeAll(async () => {
    server = await NextServer.start({ cwd, args, env });
  }, 90_000);
  afterAll(() => server?.kill());
  return () => server as NextServer;
}
