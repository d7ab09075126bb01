/** Every example runs as it is, ends by itself and says something. */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const examples = readdirSync(`${root}/examples`).filter((file) => /^\d+.*\.mjs$/.test(file));

function run(file: string): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [file], { cwd: root });
  let output = '';
  child.stdout.on('data', (data: Buffer) => (output += data.toString()));
  child.stderr.on('data', (data: Buffer) => (output += data.toString()));
  const hang = setTimeout(() => child.kill('SIGKILL'), 50_000);
  return new Promise((resolve) =>
    child.on('close', (code) => {
      clearTimeout(hang);
      resolve({ code, output });
    }),
  );
}

describe('examples', () => {
  it.each(examples)('%s', { timeout: 60_000 }, async (file) => {
    const { code, output } = await run(`examples/${file}`);
    expect(code, output).toBe(0);
    expect(output.trim()).not.toBe('');
  });
});
