// What `serve` is told, by flags, environment and file: which goes first, what each came from, what is
// said of wrong ones.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { invalidOptions } from '../../src/check-shape.js';
import { parseCommand } from '../../src/cli/command-line.js';
import { serve } from '../../src/cli/commands/serve.js';
import { loadConfigFile } from '../../src/cli/serve/config-file.js';
import { blame, resolveConfig } from '../../src/cli/serve/resolve-config.js';
import { SETTING_KEYS, SETTINGS } from '../../src/cli/serve/settings.js';
import type { ServeConfig } from '../../src/server/serve-config.js';

const folder = mkdtempSync(path.join(tmpdir(), 'lorax-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

const FILE = '/etc/lorax-js.config.mjs';
const resolve = (args: string[], env: Record<string, string> = {}, config: ServeConfig = {}) =>
  resolveConfig(parseCommand(serve, args).values, env, { file: FILE, config });
const originOf = ({ origins }: ReturnType<typeof resolve>, key: string) =>
  origins.find((each) => each.key === key);
const faultOf = (run: () => unknown) => {
  try {
    run();
  } catch (error) {
    return error as { message: string; data: Record<string, unknown> };
  }
  throw new Error('was accepted');
};

test('flags go before the environment, which goes before the file, which goes before the default', () => {
  const file = { port: 1, host: 'file', maxQueued: 3, memory: '1GiB', graceMs: 5 };
  const env = { LORAX_PORT: '2', LORAX_HOST: 'env', LORAX_MAX_QUEUED: '', LORAX_METRICS: 'off' };
  const resolved = resolve(['--port', '3'], env, file);
  expect(resolved.config).toMatchObject({
    ...{ port: 3, host: 'env', maxQueued: 3, memory: 2 ** 30, graceMs: 5, metrics: 'off' },
  });
  expect(
    Object.fromEntries(
      ['port', 'host', 'maxQueued', 'memory', 'device'].map((key) => [
        key,
        originOf(resolved, key)?.origin,
      ]),
    ),
  ).toEqual({
    port: '--port',
    host: 'LORAX_HOST',
    maxQueued: FILE,
    memory: FILE,
    device: 'default',
  });
  // Every setting is announced, once, with what it is.
  expect(resolved.origins.map(({ key }) => key)).toEqual(SETTING_KEYS);
  expect(originOf(resolved, 'memory')?.shown).toBe('1.00 GiB');
  expect(originOf(resolved, 'device')?.shown).toBe(SETTINGS.device.otherwise);
});

test('lists, and adapters of file and flags', () => {
  const file: ServeConfig = {
    adapters: { pirate: './pirate', json: { hub: 'acme/json' } },
    tenants: [{ id: 'a', keys: ['k'.repeat(16)] }],
  };
  const args = ['--adapter', 'pirate=hf://acme/pirate', '--cors-origins', 'https://a.example'];
  const resolved = resolve(args, { LORAX_ADAPTER_SOURCES: '/srv/adapters, hf://acme/' }, file);
  expect(resolved.config).toMatchObject({
    adapters: { pirate: 'hf://acme/pirate', json: { hub: 'acme/json' } },
    adapterSources: ['/srv/adapters', 'hf://acme/'],
    corsOrigins: ['https://a.example'],
    tenants: [{ id: 'a' }],
  });
  expect(originOf(resolved, 'adapters.pirate')).toMatchObject({ origin: '--adapter' });
  expect(originOf(resolved, 'adapters.json')).toMatchObject({ shown: 'acme/json', origin: FILE });
});

test('keys are never shown', () => {
  const key = 'a-key-that-nobody-may-see';
  const resolved = resolve(['--admin-key', key], { LORAX_API_KEY: key });
  expect(resolved.config).toMatchObject({ apiKey: key, adminKey: key });
  expect(JSON.stringify(resolved.origins)).not.toContain(key);
  expect(originOf(resolved, 'apiKey')).toMatchObject({ shown: 'set', origin: 'LORAX_API_KEY' });
});

test.each<[string[], Record<string, string>, object, string]>([
  [['--device', 'gpu'], {}, {}, '--device must be "auto" or "cpu" or "cuda"'],
  [[], { LORAX_ISOLATE: 'perhaps' }, {}, 'LORAX_ISOLATE must be true or false'],
  [[], { LORAX_PORT: 'http' }, {}, 'LORAX_PORT must be a number'],
  [[], {}, { port: '80' }, `${FILE}: port must be a number`],
  [[], {}, { memory: 'lots' }, `${FILE}: memory must be a size`],
  [[], {}, { prot: 80 }, 'Did you mean "port"?'],
  [[], {}, { adapters: ['pirate'] }, 'adapters must be an object'],
  [['--adapter', 'pirate'], {}, {}, '--adapter must be name=source'],
  [['--adapter', '../x=y'], {}, {}, '--adapter must be a name of letters'],
])('%j %j %j is refused: %s', (args, env, file, message) => {
  const error = faultOf(() => resolve(args, env, file as ServeConfig));
  expect(error.message).toContain(message);
});

test('what a value means is said with where it came from', () => {
  const resolved = resolve([], { LORAX_MEMORY: '10B' });
  const complaint = invalidOptions('options.memoryBytes', 'options.memoryBytes is too small.');
  const blamed = blame(complaint, resolved, { memoryBytes: 'memory' }) as Error;
  expect(blamed.message).toBe('LORAX_MEMORY: options.memoryBytes is too small.');
  const other = new Error('no option');
  expect(blame(other, resolved, {})).toBe(other);
});

describe('the file', () => {
  const write = (name: string, text: string) => {
    const file = path.join(folder, name);
    writeFileSync(file, text);
    return file;
  };

  test('TypeScript goes through jiti', async () => {
    const file = write(
      'settings.config.ts',
      "const port: number = 81;\nexport default { port, host: 'ts' as const };\n",
    );
    expect(await loadConfigFile(file, '/')).toEqual({ file, config: { port: 81, host: 'ts' } });
  });

  test('is found by its name, or not at all', async () => {
    expect(await loadConfigFile(undefined, folder)).toBeUndefined();
    const file = write('lorax-js.config.mjs', 'export default { port: 82 };');
    expect(await loadConfigFile(undefined, folder)).toEqual({ file, config: { port: 82 } });
  });

  test.each([
    ['broken.mjs', 'export default {', 'cannot be read'],
    ['empty.mjs', 'export const port = 1;', 'its default export must be an object'],
  ])('%s: %s', async (name, text, message) => {
    await expect(loadConfigFile(write(name, text), folder)).rejects.toThrow(message);
  });

  test('one that was named has to be there', async () => {
    await expect(loadConfigFile('none.mjs', folder)).rejects.toThrow('There is no file');
  });
});
