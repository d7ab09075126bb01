// How an engine ends with its environment: every way a thread or process can stop mid-stream, each
// in a child process with an exit code to meet and a time limit. The scenarios are in
// addon/scenarios.mjs.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const script = fileURLToPath(new URL('./addon/scenarios.mjs', import.meta.url));
const timeLimitMs = 60_000;
let folder: string;

beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'lorax-addon-'));
});
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs a scenario; `interrupt` sends SIGINT as soon as tokens flow. */
function run(scenario: string, { interrupt = false } = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--expose-gc', script, scenario, folder]);
    const outcome = { stdout: '', stderr: '' };
    let sent = false;
    const limit = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${scenario} hung: ${outcome.stdout}${outcome.stderr}`));
    }, timeLimitMs - 5_000);
    child.stdout.on('data', (chunk: Buffer) => {
      outcome.stdout += chunk.toString();
      if (interrupt && !sent && outcome.stdout.includes('streaming')) {
        sent = true;
        child.kill('SIGINT');
      }
    });
    child.stderr.on('data', (chunk: Buffer) => {
      outcome.stderr += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      resolve({ ...outcome, code, signal });
    });
  });
}

/** What a scenario printed last, when it ended well and in silence. */
async function printed(scenario: string): Promise<unknown> {
  const outcome = await run(scenario);
  expect(outcome).toMatchObject({ code: 0, signal: null, stderr: '' });
  return JSON.parse(outcome.stdout.trim());
}

describe('mid-stream', { timeout: timeLimitMs }, () => {
  it.each([
    ['natural-end', 0, 'streaming\n'],
    ['process-exit', 7, 'streaming\n'],
    ['process-exit-in-callback', 7, ''],
    ['process-exit-while-loading', 7, 'loading\n'],
    ['process-exit-with-workers', 7, 'streaming\n'],
    ['terminate', 0, 'terminated\n'],
    ['terminate-while-loading', 0, 'terminated\n'],
    ['worker-ends', 0, 'exit 0\n'],
    ['worker-exits', 0, 'exit 5\n'],
    ['worker-throws', 0, 'error thrown in the worker, exit 1\n'],
    ['adapters-while-stopping', 0, 'settled\n'],
  ])('%s ends with code %i', async (scenario, code, stdout) => {
    expect(await run(scenario)).toEqual({ code, signal: null, stdout, stderr: '' });
  });

  it.each([
    ['uncaught', 'thrown in a timer'],
    ['uncaught-in-callback', 'thrown in onEvents'],
  ])('%s ends as any uncaught exception', async (scenario, message) => {
    const outcome = await run(scenario);
    expect(outcome).toMatchObject({ code: 1, signal: null });
    expect(outcome.stderr).toContain(`Error: ${message}`);
  });

  it.each(['stream', 'stream-in-worker'])('%s dies of SIGINT', async (scenario) => {
    const outcome = await run(scenario, { interrupt: true });
    expect(outcome).toEqual({ code: null, signal: 'SIGINT', stdout: 'streaming\n', stderr: '' });
  });

  it('stop() fails what is open with DISPOSED, then refuses', async () => {
    expect(await printed('stop-mid-stream')).toEqual({
      end: 'DISPOSED',
      submit: 'DISPOSED',
      stats: 'DISPOSED',
      addAdapter: 'DISPOSED',
      cancel: 'none',
      info: 'none',
    });
  });
});

describe('several engines', { timeout: timeLimitMs }, () => {
  it('a worker generates what the main thread does', async () => {
    expect(await printed('generate-in-worker')).toEqual({ count: 12, same: true, code: 0 });
  });

  it('two in one process do not know of each other', async () => {
    expect(await printed('two-engines')).toEqual({ same: true, count: 12 });
  });

  // One engine is some 25 MB here: a leak of one in ten shows.
  it('fifty starts and stops leak nothing', async () => {
    const { early, late, threads } = (await printed('restarts')) as Record<string, number>;
    expect(late! - early!).toBeLessThan(48 << 20);
    expect(threads).toBeLessThan(16);
  });

  it('twenty terminated workers leak nothing', async () => {
    const { early, late } = (await printed('worker-restarts')) as Record<string, number>;
    expect(late! - early!).toBeLessThan(96 << 20);
  });
});

describe('adapters', { timeout: timeLimitMs }, () => {
  it('load at once, batch without changing each other, refuse by name', async () => {
    expect(await printed('adapters')).toEqual({
      distinct: 5,
      same: true,
      logprobs: 12 * 3,
      code: 'ADAPTER_INVALID',
      named: true,
      refused: 'ADAPTER_NOT_FOUND',
      listed: 3,
      finished: 10,
    });
  });
});
