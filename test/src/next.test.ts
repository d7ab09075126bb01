/** withLorax adds and never overwrites, and what it adds names every file that is opened by path. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { withLorax } from '../../src/next.js';
import { addonPaths, cudaPluginPaths } from '../../src/platform-packages.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface Traced {
  serverExternalPackages?: string[];
  outputFileTracingIncludes?: Record<string, string[]>;
}

/** What withLorax adds to the routes' files, as absolute paths with `*` and `?` left in. */
function addedFiles(): string[] {
  const { outputFileTracingIncludes } = withLorax<Traced>({});
  return (outputFileTracingIncludes?.['/*'] ?? []).map((glob) => path.resolve(glob));
}

function matches(glob: string, file: string): boolean {
  const source = glob
    .replace(/[.+^$|\\]/g, '\\$&')
    .replace(/[*?]/g, (c) => `[^/]${c === '*' ? '*' : ''}`);
  return new RegExp(`^${source}$`).test(file);
}

describe('an object', () => {
  test('gets the package and its files', () => {
    const config = withLorax({ reactStrictMode: true } as Traced & { reactStrictMode: boolean });
    expect(config.reactStrictMode).toBe(true);
    expect(config.serverExternalPackages).toEqual(['lorax-js']);
    expect(Object.keys(config.outputFileTracingIncludes ?? {})).toEqual(['/*']);
  });

  test('keeps what it has, in its order, and is not changed itself', () => {
    const given = {
      serverExternalPackages: ['sharp', 'lorax-js'],
      outputFileTracingIncludes: { '/api/*': ['a.json'], '/*': ['b.json'] },
    };
    const before = structuredClone(given);
    const config = withLorax(given);
    expect(given).toEqual(before);
    expect(config.serverExternalPackages).toEqual(['sharp', 'lorax-js']);
    expect(config.outputFileTracingIncludes['/api/*']).toEqual(['a.json']);
    expect(config.outputFileTracingIncludes['/*'].slice(0, 1)).toEqual(['b.json']);
    expect(config.outputFileTracingIncludes['/*'].length).toBeGreaterThan(2);
  });

  test('twice is once', () => {
    const once = withLorax<Traced>({ serverExternalPackages: ['sharp'] });
    expect(withLorax(once)).toEqual(once);
  });

  test('none at all', () => {
    expect(withLorax()).toEqual(withLorax({}));
  });
});

describe('other forms that Next takes', () => {
  const context = { defaultConfig: { distDir: '.next' } };

  test('a promise', async () => {
    const config = withLorax(Promise.resolve<Traced>({ serverExternalPackages: ['sharp'] }));
    expect((await config).serverExternalPackages).toEqual(['sharp', 'lorax-js']);
  });

  test('a function: called with what Next gives it, at once', () => {
    const config = withLorax((phase: string, { defaultConfig }: typeof context) => ({
      ...defaultConfig,
      env: { phase },
    }));
    const result = config('phase-production-build', context);
    expect(result).toMatchObject({ distDir: '.next', env: { phase: 'phase-production-build' } });
    expect((result as Traced).serverExternalPackages).toEqual(['lorax-js']);
  });

  test('an async function', async () => {
    const config = withLorax(async (): Promise<Traced> => ({ serverExternalPackages: ['sharp'] }));
    expect((await config('', context)).serverExternalPackages).toEqual(['sharp', 'lorax-js']);
  });

  test('its failure is passed on', async () => {
    const config = withLorax(async () => {
      await Promise.resolve();
      throw new Error('no .env');
    });
    await expect(config('', context)).rejects.toThrow('no .env');
  });
});

describe('what is no configuration is refused by name', () => {
  test.each([
    ['nextConfig', () => withLorax('standalone' as never)],
    ['nextConfig', () => withLorax(() => [])('', { defaultConfig: {} })],
    ['nextConfig.serverExternalPackages', () => withLorax({ serverExternalPackages: 'sharp' })],
    [
      'nextConfig.outputFileTracingIncludes["/*"]',
      () => withLorax({ outputFileTracingIncludes: { '/*': 'data/**' } }),
    ],
  ])('%s', (field, call) => {
    expect(call).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTIONS',
        data: expect.objectContaining({ field }),
      }),
    );
  });
});

describe('the files', () => {
  const cwd = process.cwd();
  afterEach(() => process.chdir(cwd));

  test.each(['.', 'examples', 'node_modules/.bin'])('from the project folder %s', (project) => {
    process.chdir(path.join(root, project));
    const globs = addedFiles();
    const opened = [path.join(root, 'dist', 'worker.mjs'), ...addonPaths(), ...cudaPluginPaths()];
    expect(opened.length).toBeGreaterThan(3);
    for (const file of opened) {
      expect(
        globs.some((glob) => matches(glob, file)),
        `${file} in ${globs.join(' ')}`,
      ).toBe(true);
    }
  });

  test('are named relative to the project, as Next resolves them', () => {
    const { outputFileTracingIncludes } = withLorax<Traced>({});
    const globs = outputFileTracingIncludes?.['/*'] ?? [];
    expect(globs.filter((glob) => path.isAbsolute(glob) || glob.includes('\\'))).toEqual([]);
  });
});
