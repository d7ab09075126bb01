// Several processes on one cache: at once, killed in mid-download, and Python's beside ours.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'tsdown';
import { beforeAll, describe, expect, it } from 'vitest';
import { adapterFiles, call, filesBelow, hub, litter, partials, setUp } from './fixture.js';

const WEIGHTS = 'adapter_model.safetensors';
let program = '';

beforeAll(async () => {
  const outDir = path.join(import.meta.dirname, '../../../.cache/fetch-process');
  await build({
    entry: { main: path.join(import.meta.dirname, 'fetch-process.ts') },
    ...{ outDir, format: 'esm', platform: 'node', dts: false, config: false, logLevel: 'error' },
    deps: { onlyBundle: false },
  });
  program = path.join(outDir, 'main.mjs');
});

interface Running {
  child: ChildProcess;
  /** What it printed; rejects with what it complained of. */
  directory: Promise<string>;
}

function start(endpoint: string, root: string, repository: string): Running {
  const child = spawn(process.execPath, [program, endpoint, root, repository]);
  let [output, complaint] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (complaint += data.toString()));
  const directory = new Promise<string>((resolve, reject) =>
    child.on('close', (code) => (code === 0 ? resolve(output) : reject(new Error(complaint)))),
  );
  directory.catch(() => undefined);
  return { child, directory };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe('processes that share a cache', () => {
  it('fetch a file once between them', async () => {
    const { server, root, cache } = await setUp();
    const files = adapterFiles(2_000_000);
    server.add('acme/pirate', files);
    server.fault = ({ host }) => (host === 'cdn' ? { bytesPerTick: 20_000 } : undefined);
    const running = [1, 2, 3].map(() => start(server.url, root, 'acme/pirate'));
    const directories = await Promise.all(running.map(({ directory }) => directory));
    expect(new Set(directories).size).toBe(1);
    expect(readFileSync(path.join(directories[0]!, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    expect(server.downloads(/\/blob\//).length).toBe(1);
    expect([...litter(cache), ...partials(cache)]).toEqual([]);
  });

  it('go on where one was killed', async () => {
    const { server, root, cache } = await setUp();
    const files = adapterFiles(2_000_000);
    server.add('acme/pirate', files);
    server.fault = ({ host }) => (host === 'cdn' ? { bytesPerTick: 20_000 } : undefined);
    const killed = start(server.url, root, 'acme/pirate');
    await until(() => partials(cache).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const waiting = start(server.url, root, 'acme/pirate');
    await new Promise((resolve) => setTimeout(resolve, 300));
    killed.child.kill('SIGKILL');
    await expect(killed.directory).rejects.toThrow();
    const directory = await waiting.directory;
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    const [first, second, ...more] = server.downloads(/\/blob\//);
    expect(first?.range).toBeUndefined();
    expect(second?.range).toMatch(/^bytes=[1-9]\d+-$/);
    expect(more).toEqual([]);
    expect([...litter(cache), ...partials(cache)]).toEqual([]);
  });

  it('find a sound cache, whenever one was killed', { timeout: 60_000 }, async () => {
    const { server, root, cache } = await setUp();
    const files = adapterFiles(1_000_000);
    server.add('acme/pirate', files);
    server.fault = ({ host }) => (host === 'cdn' ? { bytesPerTick: 50_000 } : undefined);
    for (const ms of [20, 60, 100, 140, 180, 220, 260, 300]) {
      const { child, directory } = start(server.url, root, 'acme/pirate');
      await new Promise((resolve) => setTimeout(resolve, ms));
      child.kill('SIGKILL');
      await directory.catch(() => undefined);
      for (const file of filesBelow(cache)) {
        // What has a blob's name is whole.
        if (/\/blobs\/[0-9a-f]{64}$/.test(file)) {
          expect(readFileSync(path.join(cache, file)).equals(files[WEIGHTS])).toBe(true);
        }
      }
    }
    const directory = await start(server.url, root, 'acme/pirate').directory;
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    expect([...litter(cache), ...partials(cache)]).toEqual([]);
  });
});

const python = process.env.LORAX_TEST_PYTHON ?? 'python3';
const hasHub = spawnSync(python, ['-c', 'import huggingface_hub']).status === 0;
if (!hasHub) {
  console.warn(
    `skipped: huggingface_hub beside ours, since ${python} has no such package (LORAX_TEST_PYTHON ` +
      'names another Python)',
  );
}

describe.skipIf(!hasHub)("Python's huggingface_hub and ours", () => {
  /** Asynchronous, so that the server of this process can answer it. */
  async function runPython(code: string, env: Record<string, string>): Promise<string> {
    const child = spawn(python, ['-c', code], {
      env: { ...process.env, HF_HUB_DISABLE_PROGRESS_BARS: '1', HF_HUB_DISABLE_XET: '1', ...env },
    });
    let [output, complaint] = ['', ''];
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    child.stderr.on('data', (data: Buffer) => (complaint += data.toString()));
    const code_ = await new Promise((resolve) => child.on('close', resolve));
    expect(code_, complaint).toBe(0);
    return output.trim();
  }

  it('find what the other has fetched', { timeout: 60_000 }, async () => {
    const { server, cache, anew } = await setUp();
    server.add('acme/ours', adapterFiles());
    const ours = await anew().adapter(hub('acme/ours'), undefined, call());
    const offline = { HF_HUB_CACHE: cache, HF_ENDPOINT: server.url, HF_HUB_OFFLINE: '1' };
    const theirs = await runPython(
      'import huggingface_hub as h, json; c = h.scan_cache_dir(); ' +
        `print(json.dumps([h.hf_hub_download("acme/ours", "${WEIGHTS}"), ` +
        '[r.repo_id for r in c.repos], [str(w) for w in c.warnings]]))',
      offline,
    );
    expect(JSON.parse(theirs)).toEqual([path.join(ours, WEIGHTS), ['acme/ours'], []]);

    server.add('acme/theirs', adapterFiles());
    const online = { HF_HUB_CACHE: cache, HF_ENDPOINT: server.url };
    const fetched = await runPython(
      `import huggingface_hub as h; [h.hf_hub_download("acme/theirs", f) for f in ` +
        `("adapter_config.json", "${WEIGHTS}")]; print(h.hf_hub_download("acme/theirs", "${WEIGHTS}"))`,
      online,
    );
    const before = server.downloads(/./).length;
    const found = await anew().adapter(hub('acme/theirs'), undefined, call());
    expect(path.join(found, WEIGHTS)).toBe(fetched);
    expect(server.downloads(/./).length).toBe(before);
    expect(await anew(true).adapter(hub('acme/theirs'), undefined, call())).toBe(found);
  });
});
