// The commands that need no server, as the built command runs them.
import { createHash } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createEngine } from 'lorax-js/engine';
import { root, runCli, runJson, startCli } from '../cli/run-cli.js';
import { reportCache } from '../../worker/reports/cache-report.js';
import { HubServer } from '../worker/sources/hub-server.js';

const demo = path.join(root, 'models/demo');
const pirate = path.join(demo, 'adapters/pirate');
const scratch = mkdtempSync(path.join(tmpdir(), 'lorax-cli-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

test('without a command, and with one that is none, it says how it is used', async () => {
  const nothing = await runCli([]);
  expect(nothing.code).toBe(2);
  expect(nothing.stderr).toContain('usage: lorax-js <command>');
  const wrong = await runJson(['inspekt']);
  expect(wrong.code).toBe(2);
  expect(wrong.json.error.code).toBe('INVALID_OPTIONS');
  const help = await runCli(['estimate', '--help']);
  expect([help.code, help.stderr]).toEqual([0, '']);
  expect(help.stdout).toContain('--rank <n>');
});

describe('inspect', () => {
  test('an adapter and the base that fits', async () => {
    const { code, json } = await runJson(['inspect', pirate, '--model', demo]);
    expect(code).toBe(0);
    expect(json).toMatchObject({
      ...{ ranks: [32], alpha: 32, base: 'fits', features: [], baseModel: demo },
      targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj'],
      fileBytes: statSync(`${pirate}/adapter_model.safetensors`).size,
    });
    expect(json.hash).toMatch(/^[0-9a-f]{64}$/);
    // What people read has no escape codes where it is piped.
    const { stdout } = await runCli(['inspect', pirate]);
    expect(stdout).toContain('fits models/demo');
    expect(stdout).not.toContain('\u001b');
  });

  test('names what is not supported and what does not fit', async () => {
    const odd = path.join(scratch, 'odd');
    cpSync(pirate, odd, { recursive: true });
    const config = JSON.parse(readFileSync(`${odd}/adapter_config.json`, 'utf8'));
    const write = (more: object) =>
      writeFileSync(`${odd}/adapter_config.json`, JSON.stringify({ ...config, ...more }));
    write({ base_model_name_or_path: 'nowhere/none', layer_replication: [[0, 2]], use_dora: true });
    const unsupported = await runJson(['inspect', odd]);
    expect(unsupported.code).toBe(1);
    expect(unsupported.json.problem.code).toBe('ADAPTER_UNSUPPORTED');
    expect(unsupported.json.problem.message).toContain('layer_replication');
    expect(unsupported.json).toMatchObject({ base: 'not-given', ranks: [32], features: ['DoRA'] });
    write({ r: 16 });
    const misfit = await runJson(['inspect', odd, '--model', demo]);
    expect(misfit.code).toBe(1);
    expect(misfit.json.base).toBe('does-not-fit');
    expect(misfit.json.problem.message).toContain('gives rank 16');
  });

  test('a place that is none is wrong usage', async () => {
    const { code, json } = await runJson(['inspect', path.join(scratch, 'nothing-here')]);
    expect([code, json.error.code]).toEqual([2, 'INVALID_OPTIONS']);
  });
});

test('ls of a folder: every adapter with its verdict', async () => {
  const folder = path.join(scratch, 'folder');
  cpSync(`${demo}/adapters/brief`, `${folder}/brief`, { recursive: true });
  mkdirSync(`${folder}/notes`);
  cpSync(pirate, `${folder}/cut`, { recursive: true });
  writeFileSync(`${folder}/cut/adapter_model.safetensors`, 'short');
  const { code, json } = await runJson(['ls', folder, '--model', demo]);
  expect(code).toBe(0);
  expect(json.adapters).toMatchObject([
    { name: 'brief', base: 'fits', ranks: [4] },
    { name: 'cut', base: 'does-not-fit', problem: { code: 'ADAPTER_INVALID' } },
  ]);
});

describe('pull', () => {
  const hub = new HubServer();
  beforeAll(() => hub.start());
  afterAll(() => hub.stop());
  const weights = Buffer.alloc(3 << 20, 'weights of a model ');
  const config = readFileSync(`${demo}/config.json`);

  test('a model that was cut off goes on where it was, and ls shows both', async () => {
    const cache = path.join(scratch, 'cache');
    const files = { 'config.json': config, 'tokenizer.json': '{}', 'model.safetensors': weights };
    hub.add('org/model', files);
    const args = ['pull', 'org/model', '--endpoint', hub.url, '--cache-dir', cache];
    const blob = createHash('sha256').update(weights).digest('hex');
    const blobs = path.join(cache, 'models--org--model', 'blobs');
    const partial = () => statSync(`${blobs}/${blob}.lorax.incomplete`, { throwIfNoEntry: false });
    hub.fault = ({ path: asked }) =>
      /safetensors/.test(asked) && !asked.startsWith('/api/') ? { bytesPerTick: 8192 } : undefined;
    const first = startCli(args);
    await expect
      .poll(() => partial()?.size ?? 0, { timeout: 15_000, interval: 20 })
      .toBeGreaterThan(0);
    first.child.kill('SIGKILL');
    await first.result;
    const left = partial()!.size;
    expect(left).toBeLessThan(weights.length);
    expect((await reportCache(cache))[0]?.partialBytes).toBeGreaterThanOrEqual(left);

    hub.fault = () => undefined;
    hub.log.length = 0;
    const { code, json } = await runJson(args);
    expect([code, json.kind]).toEqual([0, 'model']);
    const resumed = hub.log.filter(({ range }) => range !== undefined);
    expect(resumed.map(({ range }) => range)).toContain(`bytes=${left}-`);
    expect(readFileSync(`${json.directory}/model.safetensors`).equals(weights)).toBe(true);
    expect((await runJson(['ls', '--cache-dir', cache])).json.repositories).toMatchObject([
      {
        repository: 'org/model',
        kind: 'model',
        partialBytes: 0,
        refs: { main: expect.any(String) },
      },
    ]);
  });

  test('what is not there is an error with the reason', async () => {
    const cache = path.join(scratch, 'empty');
    const args = ['pull', 'org/none', '--endpoint', hub.url, '--cache-dir', cache];
    const { code, json } = await runJson(args);
    expect([code, json.error.code, json.error.data.reason]).toEqual([
      ...[1, 'ADAPTER_FETCH_FAILED', 'unauthorized'],
    ]);
  });
});

describe('estimate', () => {
  const ask = (...args: string[]) => runJson(['estimate', demo, '--device', 'cpu', ...args]);

  test('says what the engine says: weights, KV, adapters', async () => {
    const { json } = await ask('--rank', '32', '--targets', 'q_proj,k_proj,v_proj,o_proj');
    const inspected = await runJson(['inspect', pirate, '--model', demo]);
    expect(json.bytesPerAdapter).toBe(inspected.json.engineBytes);
    expect(json.weightBytes).toBe(tensorBytes());
    await using engine = createEngine({ model: demo, device: 'cpu', memoryBytes: 8 << 20 });
    const info = await engine.ready();
    expect(json.kvBytesPerToken * info.blockTokens).toBe(info.pageBytes);
    await engine.adapters.add('pirate', pirate);
    const [loaded] = await engine.adapters.list();
    // Packed, rows of a slice are padded; nothing else is added.
    expect(loaded?.bytes).toBeGreaterThanOrEqual(json.bytesPerAdapter);
    expect(loaded?.bytes).toBeLessThan(json.bytesPerAdapter * 1.1);
  });

  test('a device too small, and one that is large enough', async () => {
    const many = ['--adapters', '1000', '--rank', '64', '--sequences', '4', '--tokens', '512'];
    const small = await ask(...many, '--memory', '64MiB');
    expect([small.code, small.json.fits, small.json.kvTokens]).toEqual([1, false, 0]);
    const large = await ask(...many, '--memory', '64GiB');
    expect([large.code, large.json.fits]).toEqual([0, true]);
    const few = await ask(...many, '--memory', '64MiB', '--resident', '8');
    expect([few.code, few.json.fits]).toEqual([0, true]);
  });

  test('--load asks the engine for its pages', async () => {
    const { json } = await ask('--load', '--memory', '16MiB', '--adapters', '20');
    expect(json.engine.numPages).toBe((16 << 20) / json.engine.pageBytes);
    expect(json.poolBytes).toBe(16 << 20);
    const free =
      json.engine.numPages - 20 * Math.ceil(json.bytesPerAdapter / json.engine.pageBytes);
    expect(json.kvTokens).toBe(free * json.engine.blockTokens);
  });

  test('targets and devices that are none are named', async () => {
    const { code, json } = await ask('--targets', 'q_proj,qkv');
    expect([code, json.error.data.field]).toEqual([2, '--targets']);
  });

  /** Of the file's own tensors, which are bf16 as the engine's are. */
  function tensorBytes(): number {
    const file = readFileSync(`${demo}/model.safetensors`);
    return file.length - 8 - Number(file.readBigUInt64LE(0));
  }
});

test('doctor: what is built works, and why there is no CUDA', async () => {
  const { code, json } = await runJson(['doctor']);
  expect(code).toBe(0);
  expect(json.addon).toMatchObject({ loads: true, problem: null });
  expect(json.engine).toMatchObject({ works: true, problem: null });
  if (json.cuda.usable) expect(json.cuda.why).toBeNull();
  else expect(json.cuda.why).toMatch(/^DEVICE_UNAVAILABLE: /);
});

test('chat: lines of a pipe, an adapter, two beside each other', async () => {
  const lines = ['Where is my order 4821?', '/adapter pirate', 'Where is my order 4821?'];
  const more = [
    '/compare base pirate',
    'Do you deliver to Lisbon?',
    '/adapter none',
    '/quit',
    'late',
  ];
  const args = ['chat', demo, '--device', 'cpu', '--adapter-folder', `${demo}/adapters`];
  const input = [...lines, ...more].join('\n');
  const json = await startCli([...args, '--json', '--max-tokens', '24'], {}, input).result;
  expect(json.code).toBe(0);
  const answers = json.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).answers as { adapter: string; text: string }[]);
  expect(answers.map((each) => each.map(({ adapter }) => adapter))).toEqual([
    ...[['base'], ['pirate'], ['base', 'pirate']],
  ]);
  expect(answers[1]?.[0]?.text).toMatch(/Arr|yer|sail/);
  expect(json.stderr).toContain('There is no adapter none');
  const plain = await startCli([...args, '--max-tokens', '24'], {}, input).result;
  expect(plain.stdout).toContain(answers[0]?.[0]?.text);
  expect(plain.stdout).toMatch(/^\[base\] +\| \[pirate\]$/m);
  expect(plain.stdout).not.toContain('\u001b');
});

test('bench: tokens and times, of the base and of adapters', async () => {
  const load = ['--sequences', '1,3', '--prompt-tokens', '8', '--output-tokens', '6'];
  const args = ['bench', demo, '--device', 'cpu', '--adapter', `pirate=${pirate}`, '--rounds', '2'];
  const { code, json } = await runJson([...args, ...load]);
  expect(code).toBe(0);
  expect(
    json.results.map(({ sequences, adapters }: Record<string, number>) => [sequences, adapters]),
  ).toEqual([
    ...[
      [1, 0],
      [3, 0],
    ],
    ...[
      [1, 1],
      [3, 1],
    ],
  ]);
  for (const result of json.results) {
    expect(result.outputTokensPerSecond).toBeGreaterThan(0);
    expect(result.firstTokenMs.p99).toBeGreaterThanOrEqual(result.firstTokenMs.p50);
    expect(result.betweenTokensMs.p99).toBeGreaterThan(0);
  }
});
