/**
 * The Piscina worker's entry: wires one port to one engine and returns.
 *
 * It must return at once: a task that stays pending would keep the process alive for ever. From then
 * on the port does everything; it keeps this thread listening, not the process (Piscina's idle
 * threads do not). Called by src/worker-connection.ts as the task "serve". The threads that read adapters
 * start from this file, too.
 */
import { workerData, type MessagePort } from 'node:worker_threads';
import { EnginePort } from './engine-port.js';
import { READING_THREAD, serveReadings } from './files/reading-threads.js';
import type { ServeTask } from './protocol.js';

if (workerData === READING_THREAD) serveReadings();

export function serve({ port, options }: ServeTask): void {
  new EnginePort(port as MessagePort, options);
}

export default serve;
