/**
 * A Next server of the example in a process group of its own, and what can be seen of it from outside.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const READY_WITHIN_MS = 60_000;

export interface ServerCommand {
  /** The folder to run in. */
  cwd: string;
  /** Of Node; `PORT` becomes the port. */
  args: string[];
  env: Record<string, string>;
}

/** What the example's /api/status answers. */
export interface Status {
  pages: { kv: number; adapter: number };
  requests: { running: number; waiting: number };
  finished: number;
  adapters: { name: string; resident: boolean }[];
}

export class NextServer {
  readonly url: string;
  readonly #child: ChildProcess;
  #output = '';

  static async start({ cwd, args, env }: ServerCommand): Promise<NextServer> {
    const port = String(await freePort());
    const child = spawn(
      process.execPath,
      args.map((arg) => (arg === 'PORT' ? port : arg)),
      { cwd, detached: true, env: { ...process.env, NODE_ENV: undefined, ...env, PORT: port } },
    );
    const server = new NextServer(child, `http://localhost:${port}`);
    await server.#answers();
    return server;
  }

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.url = url;
    const keep = (data: Buffer) => (this.#output += data.toString());
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
  }

  get output(): string {
    return this.#output;
  }

  async status(): Promise<Status> {
    const response = await fetch(`${this.url}/api/status`);
    if (!response.ok) throw new Error(`/api/status: ${response.status}\n${this.#output}`);
    return (await response.json()) as Status;
  }

  /** Asks as the page does; `signal` leaves. */
  ask(adapter: string, text: string, { endless = false } = {}): Promise<Response> {
    const messages = [{ id: '1', role: 'user', parts: [{ type: 'text', text }] }];
    return fetch(`${this.url}/api/chat`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages, adapter, endless }),
    });
  }

  /** Engine threads in all the server's processes: the engine names its thread. */
  numEngines(): number {
    return this.#processes()
      .flatMap((pid) => threadNames(pid))
      .filter((name) => name === 'lorax-engine').length;
  }

  /** As an orchestrator stops it; the exit code. */
  async terminate(): Promise<number | null> {
    const ended = new Promise<number | null>((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    return ended;
  }

  /** Whatever is left of it. */
  kill(): void {
    try {
      process.kill(-(this.#child.pid as number), 'SIGKILL');
    } catch {
      // It has ended.
    }
  }

  async #answers(): Promise<void> {
    const deadline = Date.now() + READY_WITHIN_MS;
    while (Date.now() < deadline && this.#child.exitCode === null) {
      const response = await fetch(this.url).catch(() => undefined);
      if (response?.ok) return;
      await sleep(100);
    }
    this.kill();
    throw new Error(`Next did not answer at ${this.url}:\n${this.#output}`);
  }

  #processes(): string[] {
    return readdirSync('/proc').filter((name) => {
      if (!/^\d+$/.test(name)) return false;
      // pid (name) state ppid pgrp ...; the name may hold anything but is the last in parentheses.
      const stat = readOrEmpty(`/proc/${name}/stat`);
      const group = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2];
      return Number(group) === this.#child.pid;
    });
  }
}

function threadNames(pid: string): string[] {
  const folder = `/proc/${pid}/task`;
  return readdirSync(folder).map((thread) => readOrEmpty(`${folder}/${thread}/comm`).trim());
}

/** Processes and threads end while they are listed. */
function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
