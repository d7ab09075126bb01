// Which device is chosen, and how its absence is told. The addon opens test/native/plugin's plugins
// as it would open lorax_cuda.so: a border between two C++ runtimes, crossed by objects and
// exceptions. What this machine has of CUDA decides only what the last part expects.
import { createEngine } from 'lorax-js/engine';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type {
  EngineAddon,
  NativeEngineConfig,
  NativeSampling,
  StepEvents,
} from '../../worker/addon.js';
import { EventLog, loadAddon, sampling, tinyConfig } from './addon/tiny-model.mjs';

const release = fileURLToPath(new URL('../../build/Release', import.meta.url));
const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const realPlugin = path.join(release, 'lorax_cuda.so');
const tinyModelModule = new URL('./addon/tiny-model.mjs', import.meta.url).href;
const nothing = () => undefined;

let folder: string;
let addon: EngineAddon;
let base: NativeEngineConfig;

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-device-'));
  addon = loadAddon() as EngineAddon;
  base = { ...(tinyConfig(folder) as NativeEngineConfig), precision: 'bfloat16' };
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

function config(
  device: NativeEngineConfig['device'],
  cuda: Partial<NativeEngineConfig['cuda']> = {},
  precision: NativeEngineConfig['precision'] = 'bfloat16',
): NativeEngineConfig {
  return { ...base, device, precision, cuda: { ...base.cuda, ...cuda } };
}

/** What an engine of this config says of itself. */
async function infoOf(of: NativeEngineConfig) {
  const engine = await addon.createEngine(of, nothing, nothing);
  const info = engine.info();
  await engine.stop();
  return info;
}

describe.runIf(process.platform === 'linux')('the plugin of a device', () => {
  const plugin = path.join(release, 'test_plugin.so');

  it.each(['test_plugin', 'test_plugin_shared_runtime'])('serves through %s', async (name) => {
    const log = new EventLog();
    const own = { plugin: path.join(release, `${name}.so`), deterministic: true };
    const onEvents = log.onEvents as (events: StepEvents) => void;
    const engine = await addon.createEngine(config('cuda', own), onEvents, nothing);
    expect(engine.info()).toMatchObject({
      device: 'cuda',
      deviceDescription: "a test's device, 0.900000 of memory, deterministic",
    });
    engine.submit(
      1,
      Int32Array.of(5, 6, 7),
      [],
      sampling({ maxOutputTokens: 4 }) as NativeSampling,
    );
    await log.ended(1);
    expect(log.of(1)).toMatchObject({ end: { reason: 1 } });
    expect(log.of(1).tokens).toHaveLength(4);
    await engine.stop();
  });

  it("is taken by 'auto', which says so", async () => {
    expect(await infoOf(config('auto', { plugin }))).toMatchObject({
      device: 'cuda',
      deviceDescription: expect.stringMatching(/\('auto': found a test's device, sm_00/) as string,
    });
  });

  it("is not opened by 'cpu', nor by 'auto' in float32", async () => {
    const broken = { plugin: path.join(folder, 'nothing.so') };
    expect(await infoOf(config('cpu', broken))).toMatchObject({ device: 'cpu' });
    expect(await infoOf(config('auto', broken, 'float32'))).toMatchObject({
      device: 'cpu',
      deviceDescription: expect.stringContaining("('auto': float32") as string,
    });
  });

  it('is refused for float32', async () => {
    await expect(infoOf(config('cuda', { plugin }, 'float32'))).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { field: 'precision' },
    });
  });

  it.each([
    ['no-device', { plugin, device: 3 }, 'there is no device 3'],
    ['no-libtest', { plugin, cacheDirectory: 'lack a library' }, 'libtest.so'],
    ['not-built', { plugin: '' }, 'lorax_cuda.so'],
    ['not-loadable', { plugin: path.join(os.tmpdir(), 'absent.so') }, 'absent.so'],
    ['not-loadable', { plugin: fileURLToPath(import.meta.url) }, 'device.test.ts'],
    [
      'other-version',
      { plugin: path.join(release, 'test_plugin_other_headers.so') },
      'not of this version',
    ],
  ])('that is %s: typed for cuda, the CPU for auto', async (reason, cuda, words) => {
    await expect(infoOf(config('cuda', cuda))).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      data: { reason },
      message: expect.stringMatching(/^device is 'cuda', but .*Use 'cpu' or 'auto'/) as string,
    });
    const { device, deviceDescription } = await infoOf(config('auto', cuda));
    expect(device).toBe('cpu');
    expect(deviceDescription).toContain("('auto': ");
    expect(deviceDescription).toContain(words);
  });

  it.each([
    ['throw runtime_error', 'internal error: not an Error'],
    ['throw bad_alloc', 'out of memory'],
    ['throw int', 'internal error'],
  ])('may %s: ENGINE_LOST, and the process goes on', async (order, message) => {
    const orders = { plugin, cacheDirectory: order };
    await expect(infoOf(config('cuda', orders))).rejects.toMatchObject({
      code: 'ENGINE_LOST',
      message,
    });
    expect(await infoOf(config('cuda', { plugin }))).toMatchObject({ device: 'cuda' });
  });

  it('may throw the first exception of a process', () => {
    // An unwinder of its own would meet the tables of the process's as they were never filled.
    const code = `
      import { loadAddon, tinyConfig } from ${JSON.stringify(tinyModelModule)};
      const [folder, plugin] = process.argv.slice(1);
      const cuda = { ...tinyConfig(folder).cuda, plugin, device: 1 };
      const config = tinyConfig(folder, { device: 'cuda', precision: 'bfloat16', cuda });
      const none = () => undefined;
      await loadAddon().createEngine(config, none, none).catch((e) => console.log(e.data.reason));`;
    const args = ['--input-type=module', '-e', code, folder, plugin];
    const printed = execFileSync(process.execPath, args, { encoding: 'utf8' });
    expect(printed).toBe('no-device\n');
  });

  it('may lose a step: what was open hears what the device said', async () => {
    const log = new EventLog();
    const orders = { plugin, cacheDirectory: 'lose at step 2' };
    const onEvents = log.onEvents as (events: StepEvents) => void;
    const engine = await addon.createEngine(config('cuda', orders), onEvents, nothing);
    engine.submit(
      1,
      Int32Array.of(5, 6, 7),
      [],
      sampling({ maxOutputTokens: 4 }) as NativeSampling,
    );
    await log.ended(1);
    expect(log.of(1).end).toMatchObject({
      failure: {
        code: 'ENGINE_LOST',
        data: { call: 'launch', recoverable: false, cause: 'launch failed: testError' },
      },
    });
    await engine.stop();
  });
});

describe('this machine', () => {
  /** A GPU that nvidia-smi lists. */
  function hasGpu(): boolean {
    try {
      return execFileSync('nvidia-smi', ['-L'], { encoding: 'utf8' }).includes('GPU 0');
    } catch {
      return false;
    }
  }
  const usable = fs.existsSync(realPlugin) && hasGpu();

  it(`runs device 'auto' on the ${usable ? 'GPU' : 'CPU'}`, async () => {
    const engine = createEngine({ model: demo, memoryFraction: 0.05 });
    const info = await engine.ready();
    expect(info.device).toBe(usable ? 'cuda' : 'cpu');
    expect(info.deviceDescription).toContain("('auto': ");
    await engine.dispose();
  });

  it(`${usable ? 'serves' : 'refuses'} device 'cuda'`, async () => {
    const engine = createEngine({ model: demo, device: 'cuda', memoryFraction: 0.05 });
    if (usable) {
      expect((await engine.ready()).device).toBe('cuda');
    } else {
      const reason = fs.existsSync(realPlugin) ? /^no-dr|^no-dev/ : /^not-built$/;
      await expect(engine.ready()).rejects.toMatchObject({
        code: 'DEVICE_UNAVAILABLE',
        data: { reason: expect.stringMatching(reason) as string },
      });
      // The next call tries again, on a worker of its own.
      await expect(engine.ready()).rejects.toMatchObject({ code: 'DEVICE_UNAVAILABLE' });
    }
    await engine.dispose();
  });
});
