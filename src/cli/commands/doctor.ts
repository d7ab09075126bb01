/**
 * `lorax-js doctor`: what is built, what devices there are, and why not CUDA.
 *
 * The addon is tried in a process of its own: a binary for another libc can do worse than throw. What
 * the engine can use it says itself, with the demo model that is published beside it.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { createEngine } from '../../create-engine.js';
import { LoraxError } from '../../errors.js';
import { addonPaths, cudaPluginPaths } from '../../platform-packages.js';
import { hubSettings } from '../../../worker/offline.js';
import type { Command } from '../command-line.js';
import { cudaPlugin, listGpus, type Gpu } from '../devices.js';
import { formatBytes, table } from '../format.js';
import type { Terminal } from '../terminal.js';

interface Diagnosis {
  node: string;
  platform: string;
  cores: number;
  availableBytes: number;
  addon: { file: string | null; loads: boolean; problem: string | null };
  cuda: {
    plugin: string | null;
    gpus: Gpu[];
    nvcc: string | null;
    usable: boolean;
    /** In the engine's words. */
    why: string | null;
  };
  engine: {
    works: boolean;
    description: string | null;
    loadMs: number | null;
    problem: string | null;
  };
  hubCache: string;
}

export const doctor: Command = {
  name: 'doctor',
  summary: 'what is built, which devices there are, and why not CUDA',
  options: {},
  async run(_args, terminal) {
    const diagnosis = await diagnose();
    terminal.result(diagnosis, () => describe(diagnosis, terminal));
    return diagnosis.engine.works ? 0 : 1;
  },
};

async function diagnose(): Promise<Diagnosis> {
  const addon = tryAddon();
  const engine = addon.loads ? await tryEngine('auto') : failed(addon.problem);
  const plugin = cudaPlugin() ?? null;
  // 'auto' says why it took the CPU; asked for, it says what is wrong.
  const isGpu = engine.device === 'cuda';
  const forced = !addon.loads || isGpu ? engine : await tryEngine('cuda');
  return {
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cores: availableParallelism(),
    availableBytes: process.availableMemory(),
    addon,
    cuda: {
      ...{ plugin, gpus: listGpus(), nvcc: nvccVersion(), usable: isGpu },
      why: isGpu ? null : forced.problem,
    },
    engine: {
      ...{ works: engine.works, description: engine.description },
      ...{ loadMs: engine.loadMs, problem: engine.problem },
    },
    hubCache: hubSettings({}).cache,
  };
}

function tryAddon(): Diagnosis['addon'] {
  const file = addonPaths().find((each) => existsSync(each)) ?? null;
  if (file === null) {
    const noted = fileURLToPath(new URL('../build/not-built.txt', import.meta.url));
    const why = existsSync(noted) ? readFileSync(noted, 'utf8').trim() : 'not built';
    return { file, loads: false, problem: `${why}. Build it with \`npx lorax-js build\`.` };
  }
  const probe = spawnSync(process.execPath, ['-e', 'require(process.argv[1])', file], {
    encoding: 'utf8',
  });
  if (probe.status === 0) return { file, loads: true, problem: null };
  const reason =
    /Error: (.*)/.exec(probe.stderr)?.[1] ?? `ended with ${probe.signal ?? probe.status}`;
  return { file, loads: false, problem: `${reason}. Build it here with \`npx lorax-js build\`.` };
}

interface Trial {
  works: boolean;
  device?: string;
  description: string | null;
  loadMs: number | null;
  problem: string | null;
}

async function tryEngine(device: 'auto' | 'cuda'): Promise<Trial> {
  const model = fileURLToPath(new URL('../models/demo', import.meta.url));
  const begin = performance.now();
  try {
    await using engine = createEngine({ model, device });
    const info = await engine.ready();
    const loadMs = Math.round(performance.now() - begin);
    const request = { prompt: 'Hello', sampling: { maxOutputTokens: 1, ignoreEos: true } };
    let tokens = 0;
    for await (const event of engine.generate(request)) {
      if (event.type === 'delta') tokens += event.tokenIds.length;
    }
    const { device: used, deviceDescription: description } = info;
    return { works: tokens === 1, device: used, description, loadMs, problem: null };
  } catch (error) {
    if (!LoraxError.isInstance(error)) throw error;
    return failed(`${error.code}: ${error.message}`);
  }
}

function failed(problem: string | null): Trial {
  return { works: false, description: null, loadMs: null, problem };
}

function nvccVersion(): string | null {
  const { status, stdout } = spawnSync('nvcc', ['--version'], { encoding: 'utf8' });
  return status === 0 ? (/release ([\d.]+)/.exec(stdout)?.[1] ?? 'unknown version') : null;
}

function describe(found: Diagnosis, terminal: Terminal): string[] {
  const { addon, cuda, engine } = found;
  const good = (text: string) => terminal.style('green', text);
  const bad = (text: string) => terminal.style('red', text);
  const gpus = cuda.gpus.map(
    ({ name, freeBytes, totalBytes, driver }) =>
      `${name}, ${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free, driver ${driver}`,
  );
  return table([
    ['node', `${found.node} on ${found.platform}`],
    ['machine', `${found.cores} cores, ${formatBytes(found.availableBytes)} available`],
    ['addon', addon.loads ? good(addon.file as string) : bad(addon.problem as string)],
    ['CUDA backend', cuda.plugin ?? `not built (looked at ${cudaPluginPaths().join(', ')})`],
    ['GPUs', gpus.length === 0 ? 'none that nvidia-smi shows' : gpus.join('; ')],
    ['nvcc', cuda.nvcc ?? 'not on the path'],
    ...(cuda.why === null ? [] : [['why not CUDA', cuda.why]]),
    [
      'engine',
      engine.works
        ? good(`${engine.description}; the demo model loads in ${engine.loadMs} ms and answers`)
        : bad(engine.problem ?? 'no answer'),
    ],
    ['hub cache', found.hubCache],
  ]);
}
