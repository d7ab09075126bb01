// A benchmark peer: a process that holds one model and answers a JSON line with a JSON line.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class Peer {
  /** @param {{ name: string, command: string, args: string[], cwd: string, serves: (c: object) => boolean }} how */
  constructor(how) {
    this.name = how.name;
    this.serves = how.serves;
    this.process = spawn(how.command, how.args, {
      cwd: how.cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, NODE_ENV: 'production' },
    });
    this.errors = '';
    this.process.stderr.on('data', (data) => (this.errors = (this.errors + data).slice(-4000)));
    this.process.on('error', (error) => (this.errors += error.message)); // there is no such command
    this.exited = new Promise((resolve) => this.process.once('close', resolve));
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
  }

  async ready() {
    return (await this.#next()).ready;
  }

  async ask(command) {
    this.process.stdin.write(JSON.stringify(command) + '\n');
    const answer = await this.#next();
    if (answer.error) throw new Error(`${this.name}, ${JSON.stringify(command)}: ${answer.error}`);
    return answer;
  }

  async stop() {
    this.process.stdin.end();
    await this.exited;
  }

  /** Lines that are no JSON object are a library's chatter. */
  async #next() {
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} ended:\n${this.errors}`);
      if (value.startsWith('{')) return JSON.parse(value);
    }
  }
}
