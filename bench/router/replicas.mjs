// `lorax-js serve` as processes, one at each address and all at one port, as pods are; and their counters.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Resolves when all serve. `memory` is each one's page pool, in bytes. */
export async function startReplicas({ addresses, port, adapterFolder, memory }) {
  const children = addresses.map((address) => {
    const args = [
      ...['--model', 'models/demo', '--device', 'cpu', '--memory', `${memory}`],
      ...['--adapter-folder', adapterFolder, '--host', address, '--port', `${port}`],
      ...['--log-level', 'warn', '--json'],
    ];
    const child = spawn(process.execPath, ['dist/cli.mjs', 'serve', ...args], { cwd: root });
    child.stderr.on('data', (chunk) => {
      // How it is set up, and then, at this level, only what is wrong.
      for (const line of `${chunk}`.split('\n')) {
        if (line !== '' && !line.startsWith('{"settings"')) console.log(`  ${address}: ${line}`);
      }
    });
    return child;
  });
  const stop = async () => {
    const ends = children.map((child) => child.exitCode ?? once(child, 'close'));
    for (const child of children) child.kill('SIGTERM');
    await Promise.all(ends);
  };
  try {
    await Promise.all(
      children.map(async (child) => {
        const [said] = await Promise.race([
          once(child.stdout, 'data'),
          once(child, 'close').then(([code]) => Promise.reject(new Error(`it ended: ${code}`))),
        ]);
        const { url, error } = JSON.parse(said);
        if (url === undefined) throw new Error(error?.message ?? `${said}`);
      }),
    );
  } catch (error) {
    await stop();
    throw error;
  }
  const scrape = (address) =>
    fetch(`http://${address}:${port}/metrics`).then((answer) => answer.text());
  return {
    stop,
    /** Of each replica, since its start. */
    counters: async () => {
      // Who scrapes gets the text of one before that is some milliseconds old (server-metrics.ts).
      await sleep(200);
      return Promise.all(
        addresses.map(async (address) => {
          const text = await scrape(address);
          const value = (name) =>
            Number(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'm').exec(text)[1]);
          return {
            hits: value('lorax:adapter_hits_total'),
            loads: value('lorax:adapter_loads_total'),
            evictions: value('lorax:adapter_evictions_total'),
            finished: value('lorax:requests_finished_total'),
            promptTokens: value('vllm:prompt_tokens_total'),
            cachedTokens: value('vllm:prefix_cache_hits_total'),
          };
        }),
      );
    },
  };
}
