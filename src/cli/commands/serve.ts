/**
 * `lorax-js serve`: the server as a process. Says what every setting resolved to and where from, ends on
 * SIGTERM and SIGINT after what is under way.
 */
import {
  startServer,
  type RunningServer,
  type ServerSettings,
} from '../../server/process/start-server.js';
import { createLog } from '../../server/process/server-log.js';
import type { Command } from '../command-line.js';
import { table } from '../format.js';
import { loadConfigFile } from '../serve/config-file.js';
import { blame, resolveConfig, SERVE_FLAGS, type ResolvedConfig } from '../serve/resolve-config.js';
import type { Terminal } from '../terminal.js';

const DEFAULT_GRACE_MS = 30_000;
/** What takes a setting calls it otherwise. */
const NAMES = {
  memoryBytes: 'memory',
  hostMemoryBytes: 'hostMemory',
  maxBodyBytes: 'maxBody',
  maxHeaderBytes: 'maxHeader',
};

export const serve: Command = {
  name: 'serve',
  summary: 'serve a model and its adapters over HTTP (OpenAI, vLLM and LoRAX clients)',
  options: SERVE_FLAGS,
  async run({ values }, terminal) {
    const given = typeof values.config === 'string' ? values.config : undefined;
    const file = await loadConfigFile(given, process.cwd());
    const resolved = resolveConfig(values, process.env, file);
    const settings = resolved.config as ServerSettings;
    announce(resolved, terminal);
    let server: RunningServer;
    try {
      server = await startServer(settings, {
        log: createLog(settings),
        onProgress: ({ name, loadedBytes, totalBytes }) =>
          terminal.progress(name, loadedBytes, totalBytes),
      });
    } catch (error) {
      throw blame(error, resolved, NAMES);
    }
    const stopped = untilStopped(server, settings.graceMs ?? DEFAULT_GRACE_MS);
    warnWhereOpen(server, settings, terminal);
    try {
      const { deviceDescription } = await server.loaded;
      terminal.result({ url: server.url, device: deviceDescription }, () => [
        `${terminal.style('green', 'serving')} at ${server.url} (${deviceDescription})`,
        ...(settings.ui === 'off' ? [] : [`dashboard at ${server.url}/ui`]),
      ]);
    } catch (error) {
      await server.close(0);
      throw blame(error, resolved, NAMES);
    }
    return stopped;
  },
};

/** Where stdout is a document, this is one line of the log. */
function announce({ origins }: ResolvedConfig, terminal: Terminal): void {
  if (terminal.json) {
    terminal.note(JSON.stringify({ settings: origins }));
    return;
  }
  for (const line of table(origins.map(({ key, shown, origin }) => [key, shown, origin]))) {
    terminal.note(line);
  }
}

function warnWhereOpen(
  { open, url }: RunningServer,
  { host = '127.0.0.1' }: ServerSettings,
  terminal: Terminal,
): void {
  if (!open || /^(127\.|::1$|localhost$)/.test(host)) return;
  terminal.note(
    terminal.styleNote('yellow', `anybody who reaches ${url} may use it: there are no keys`),
  );
}

/** Launchers pass one signal on twice; only one that comes later is a second one. */
const SAME_SIGNAL_MS = 1_000;

/** A second signal ends it at once. */
function untilStopped(server: RunningServer, graceMs: number): Promise<number> {
  return new Promise((resolve) => {
    let firstAt: number | undefined;
    const stop = (signal: NodeJS.Signals) => {
      if (firstAt !== undefined) {
        if (Date.now() - firstAt > SAME_SIGNAL_MS) process.exit(1);
        return;
      }
      firstAt = Date.now();
      server.log.info({ signal }, 'stopping');
      server.close(graceMs).then(
        (drained) => resolve(drained ? 0 : 1),
        () => resolve(1),
      );
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
