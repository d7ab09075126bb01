// The base model from the hub by its id, through the whole package.
import { readFileSync, readdirSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { createLorax } from 'lorax-js';
import { createEngine } from 'lorax-js/engine';
import type { LoadProgress } from 'lorax-js/engine';
import { describe, expect, it } from 'vitest';
import { startHub, temporaryDirectory } from '../worker/sources/fixture.js';
import { testDevice } from './suites/test-device.js';

const demo = path.join(
  path.dirname(createRequire(import.meta.url).resolve('lorax-js/package.json')),
  'models/demo',
);
const demoFiles = () =>
  Object.fromEntries(
    readdirSync(demo, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => [name, readFileSync(path.join(demo, name))]),
  );

const request = {
  messages: [{ role: 'user' as const, content: 'Where is my order 4821?' }],
  sampling: { maxOutputTokens: 20 },
};

async function textOf(engine: ReturnType<typeof createEngine>): Promise<string> {
  let text = '';
  for await (const event of engine.generate(request))
    if (event.type === 'delta') text += event.text;
  return text;
}

async function setUp() {
  const server = await startHub();
  const { commit } = server.add('acme/demo', demoFiles());
  const cacheDirectory = temporaryDirectory();
  return { server, commit, hub: { endpoint: server.url, cacheDirectory, token: false as const } };
}

describe('a model of the hub', () => {
  it('answers as the same files in a directory do, and is fetched once', async () => {
    const { server, commit, hub } = await setUp();
    await using here = createEngine({ model: demo, ...testDevice });
    const expected = await textOf(here);
    const progress: LoadProgress[] = [];
    await using engine = createEngine({
      ...{ model: 'acme/demo', hub, ...testDevice },
      onProgress: (each) => progress.push(each),
    });
    expect(await textOf(engine)).toBe(expected);
    const { model } = await engine.ready();
    expect(model).toBe(path.join(hub.cacheDirectory, 'models--acme--demo/snapshots', commit));
    const fetching = progress.filter(({ stage }) => stage === 'fetch-model');
    expect(fetching.at(-1)).toMatchObject({ totalBytes: fetching.at(-1)!.loadedBytes });
    const requests = server.log.length;
    await using offline = createEngine({
      model: `hf://acme/demo@${commit}`,
      hub: { ...hub, offline: true },
      ...testDevice,
    });
    expect(await textOf(offline)).toBe(expected);
    expect(server.log.length).toBe(requests);
  });

  it('is what a name means only where there is no such directory', async () => {
    const { server, hub } = await setUp();
    const directory = temporaryDirectory();
    symlinkSync(demo, path.join(directory, 'demo'));
    const before = process.cwd();
    try {
      process.chdir(path.dirname(directory));
      await using engine = createEngine({
        model: `${path.basename(directory)}/demo`,
        hub,
        ...testDevice,
      });
      expect((await engine.ready()).model).toBe(path.join(directory, 'demo'));
    } finally {
      process.chdir(before);
    }
    expect(server.log).toEqual([]);
  });

  it('that is not there fails the call with what was looked for, and may come later', async () => {
    const { server, hub } = await setUp();
    await using lorax = createLorax({ model: 'acme/new', hub, ...testDevice });
    await expect(lorax.engine.ready()).rejects.toMatchObject({
      code: 'MODEL_FETCH_FAILED',
      message: expect.stringMatching(/^There is no directory .*acme\/new, and hf:\/\//) as string,
      data: { source: 'hf://acme/new@main', reason: 'unauthorized', status: 401 },
    });
    server.add('acme/new', demoFiles());
    expect(await lorax.engine.ready()).toMatchObject({ device: testDevice.device });
  });
});
