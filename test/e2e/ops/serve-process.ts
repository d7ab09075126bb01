/** `lorax-js serve` as a process of its own on the demo model, with what its tests ask of it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll } from 'vitest';
import { root } from '../../cli/run-cli.js';

export const demo = path.join(root, 'models/demo');

export interface ServeProcess {
  url: string;
  child: ChildProcess;
  /** Lines of its log, as they come. */
  log: Record<string, unknown>[];
  /** Its exit code. */
  ended: Promise<number | null>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

const running: ServeProcess[] = [];
afterAll(async () => {
  for (const { child, ended } of running.splice(0)) {
    child.kill('SIGKILL');
    await ended;
  }
});

export interface ServeHow {
  model?: string;
  env?: NodeJS.ProcessEnv;
  /** Instead of dist/cli.mjs. */
  cli?: string;
}

/** Resolves when it serves. */
export async function startServe(
  args: readonly string[] = [],
  { model = demo, env = {}, cli = path.join(root, 'dist/cli.mjs') }: ServeHow = {},
): Promise<ServeProcess> {
  const usual = ['--model', model, '--device', 'cpu', '--port', '0', '--json'];
  const child = spawn(process.execPath, [cli, 'serve', ...usual, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log: Record<string, unknown>[] = [];
  let stderr = '';
  let rest = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      try {
        log.push(JSON.parse(line) as Record<string, unknown>);
      } catch {
        // A warning of Node's.
      }
    }
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  let stdout = '';
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (!stdout.includes('\n')) return;
      const { url, error } = JSON.parse(stdout) as { url?: string; error?: { message: string } };
      if (url === undefined) reject(new Error(error?.message ?? stdout));
      else resolve(url);
    });
    void ended.then((code) => reject(new Error(`it ended with ${code}: ${stdout}${stderr}`)));
  });
  const post: ServeProcess['post'] = (route, body, headers = {}) =>
    fetch(url + route, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  const serve = { url, child, log, ended, post };
  running.push(serve);
  return serve;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** Those of the server's process that run: with `--isolate`, the engine. */
export function childrenOf({ child }: ServeProcess): number[] {
  const pid = child.pid as number;
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').filter(Boolean).map(Number).filter(isAlive);
}

/** A completion that goes on for `tokens`, streamed. */
export const longRequest = (tokens: number, model = 'demo') => ({
  ...{ model, prompt: 'Where is my order?', max_tokens: tokens },
  ...{ ignore_eos: true, stream: true, temperature: 0 },
});

export interface StreamEnd {
  status: number;
  /** Events with text. */
  deltas: number;
  errors: { message: string; code: string | null }[];
  done: boolean;
  /** The connection was cut. */
  torn: boolean;
}

/** Reads a stream of completions to its end, whatever that is. */
export async function readStream(answer: Promise<Response>): Promise<StreamEnd> {
  const end: StreamEnd = { status: 0, deltas: 0, errors: [], done: false, torn: false };
  try {
    const response = await answer;
    end.status = response.status;
    const text = await response.text();
    if (response.status !== 200) {
      end.errors.push((JSON.parse(text) as { error: StreamEnd['errors'][number] }).error);
      return end;
    }
    for (const event of text.split('\n\n').filter(Boolean)) {
      const data = event.replace(/^data: /, '');
      if (data === '[DONE]') end.done = true;
      else {
        const parsed = JSON.parse(data) as { error?: StreamEnd['errors'][number] };
        if (parsed.error === undefined) end.deltas++;
        else end.errors.push(parsed.error);
      }
    }
  } catch {
    end.torn = true;
  }
  return end;
}
