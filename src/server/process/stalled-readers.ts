/**
 * Cuts off readers that take nothing of their answer: their sockets and requests are not held for ever.
 *
 * A stalled reader costs its own buffers alone while it is waited for (the stream of its request is
 * pulled, never pushed). Used by start-server.ts.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';

/** Ends with the server. */
export function cutStalledReaders(server: Server, stallTimeoutMs: number): void {
  /** Those whose buffers are full -> since when. */
  const stalled = new Map<ServerResponse, number>();
  const open = new Set<ServerResponse>();
  server.prependListener('request', (_request: IncomingMessage, response: ServerResponse) => {
    open.add(response);
    response.on('drain', () => stalled.delete(response));
    response.once('close', () => {
      open.delete(response);
      stalled.delete(response);
    });
  });
  const sweep = setInterval(
    () => {
      const now = Date.now();
      for (const response of open) {
        if (!response.writableNeedDrain) stalled.delete(response);
        else if (!stalled.has(response)) stalled.set(response, now);
        else if (now - (stalled.get(response) as number) >= stallTimeoutMs) {
          response.destroy();
        }
      }
    },
    Math.max(10, Math.min(1_000, stallTimeoutMs / 4)),
  );
  sweep.unref();
  server.once('close', () => clearInterval(sweep));
}
