/**
 * `startServer` for `lorax-js/server`: who only mounts `createServer` in an app loads neither its log nor
 * its metrics.
 */
import type { RunningServer, ServerSettings, StartHooks } from './start-server.js';

/** Throws INVALID_OPTIONS. */
export async function startServer(
  settings: ServerSettings,
  hooks: StartHooks = {},
): Promise<RunningServer> {
  const start = await import('./start-server.js');
  return start.startServer(settings, hooks);
}
