/**
 * The entry of an isolated engine's process (dist/engine-process.mjs): dist/worker.mjs, with the pipe to the
 * parent in place of a port. Started by process-connection.ts alone.
 *
 * It ends with its parent, however that ends; signals of a terminal are the parent's to answer.
 */
import { EventEmitter } from 'node:events';
import type { MessagePortLike, ServeOptions, ServeTask } from '../worker/protocol.js';

class PipePort extends EventEmitter implements MessagePortLike {
  postMessage(message: unknown): void {
    // Of a parent that is gone: 'disconnect' follows.
    process.send?.(message, undefined, undefined, () => undefined);
  }

  close(): void {
    process.disconnect();
  }
}

const { serve } = (await import(new URL('./worker.mjs', import.meta.url).href)) as {
  serve(task: ServeTask): void;
};
const port = new PipePort();
process.on('disconnect', () => process.exit(0));
process.on('SIGINT', () => undefined);
process.on('SIGTERM', () => undefined);
process.once('message', ({ options }: { options: ServeOptions }) => {
  serve({ port, options });
  process.on('message', (message) => port.emit('message', message));
});
