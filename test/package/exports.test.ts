// What the published package promises to resolvers: entries for import and require, and a module
// that explains itself where there is no Node.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const manifest: { exports: Record<string, unknown> } = JSON.parse(
  readFileSync(`${root}/package.json`, 'utf8'),
);

/** Every file path named anywhere in the exports map. */
function targets(node: unknown): string[] {
  if (typeof node === 'string') return [node];
  return Object.values(node as object).flatMap(targets);
}

/** Resolves in a process of its own, as a user's program would. */
function resolveWith(condition: string, specifier: string): string {
  const code = `console.log(import.meta.resolve(${JSON.stringify(specifier)}))`;
  const args = ['-C', condition, '--input-type=module', '-e', code];
  return execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' }).trim();
}

describe('package exports', () => {
  test('every file they name is built', () => {
    const files = targets(manifest.exports);
    expect(files.length).toBeGreaterThan(10);
    expect(files.filter((file) => !existsSync(`${root}/${file}`))).toEqual([]);
    expect(existsSync(`${root}/dist/worker.mjs`)).toBe(true);
  });

  test.each([
    'lorax-js',
    'lorax-js/engine',
    'lorax-js/ai6',
    'lorax-js/langchain',
    'lorax-js/next',
    'lorax-js/server',
    'lorax-js/test',
  ])('%s loads by import and by require', async (specifier) => {
    const code = `import(${JSON.stringify(specifier)}).then((m) => console.log(typeof m))`;
    const imported = execFileSync(process.execPath, ['--input-type=module', '-e', code], {
      cwd: root,
      encoding: 'utf8',
    });
    expect(imported.trim()).toBe('object');
    expect(typeof createRequire(`${root}/x.cjs`)(specifier)).toBe('object');
  });

  test('only lorax-js/langchain needs LangChain', () => {
    const needing = readdirSync(`${root}/dist`).filter(
      (file) =>
        /\.(mjs|cjs|mts|cts)$/.test(file) &&
        readFileSync(`${root}/dist/${file}`, 'utf8').includes('@langchain/'),
    );
    expect(needing.map((file) => file.split('.')[0])).toEqual(Array(4).fill('langchain'));
  });

  test.each(['browser', 'edge-light'])('under %s they throw what to do', async (condition) => {
    const resolved = resolveWith(condition, 'lorax-js');
    expect(resolved).toMatch(/dist\/node-only\.mjs$/);
    await expect(import(/* @vite-ignore */ resolved)).rejects.toThrow(
      'lorax-js needs the Node runtime',
    );
  });

  test('lorax-js/next brings neither Next nor the engine', () => {
    const code =
      "require('lorax-js/next');" +
      "console.log(JSON.stringify(Object.keys(require.cache).map((f) => path.relative('.', f))))";
    const output = execFileSync(process.execPath, ['-e', code], { cwd: root, encoding: 'utf8' });
    const loaded: string[] = JSON.parse(output);
    expect(loaded).toContain(path.join('dist', 'next.cjs'));
    expect(loaded.filter((file) => !file.startsWith('dist'))).toEqual([]);
    const sources = loaded.map((file) => readFileSync(`${root}/${file}`, 'utf8')).join('\n');
    const needed = new Set([...sources.matchAll(/require\("([^."][^"]*)"\)/g)].map((m) => m[1]));
    expect([...needed].sort()).toEqual(['node:path', 'node:url', 'url']);
  });

  test('the worker imports nothing but Node: tracers find it, but not what it imports', () => {
    const source = readFileSync(`${root}/dist/worker.mjs`, 'utf8');
    const imported = [...source.matchAll(/^import .* from "([^"]+)";$/gm)].map(([, name]) => name);
    expect(imported.length).toBeGreaterThan(3);
    expect(imported.filter((name) => !isBuiltin(name ?? ''))).toEqual([]);
  });
});
