/**
 * One engine in a child process, and the pipe to it: what worker-connection.ts is for a thread.
 *
 * The same protocol, so nothing above can tell. A native crash, or a CUDA context that is lost for a
 * process, ends the child alone: whoever calls next gets a new one. Used by `serve --isolate`.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ClientMessage, WorkerEvent, WorkerMessage } from '../worker/protocol.js';
import { mergeDeltas } from './merge-deltas.js';
import type { Connect } from './worker-connection.js';

export const connectProcess: Connect = (options, handlers) => {
  const child = fork(fileURLToPath(new URL('./engine-process.mjs', import.meta.url)), [], {
    // Typed arrays cross as they are.
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    execArgv: [],
  });
  let ended = false;
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const lose = (cause: unknown) => {
    if (ended) return;
    ended = true;
    child.kill('SIGKILL');
    handlers.onLost(cause);
  };

  // What came while this thread was busy is handed on as one.
  let waiting: WorkerMessage[] = [];
  const deliver = () => {
    const messages = waiting;
    waiting = [];
    if (!ended) handlers.onMessage(mergeDeltas(messages));
  };
  child.on('message', (message: WorkerMessage) => {
    if (waiting.push(message.map(recoverable)) === 1) setImmediate(deliver);
  });
  child.on('error', lose);
  child.on('exit', (code, signal) => {
    // After what it said last.
    const how = signal === null ? `with code ${code}` : `by ${signal}`;
    setImmediate(() => lose(new Error(`its process was ended ${how}`)));
  });
  send({ options });

  function send(message: object): void {
    // Of a process that is gone: 'exit' tells.
    child.send(message, () => undefined);
  }

  return {
    post: (message: ClientMessage) => send(message),
    ref: () => {
      child.ref();
      child.channel?.ref();
    },
    unref: () => {
      child.unref();
      child.channel?.unref();
    },
    async close() {
      ended = true;
      child.kill('SIGKILL');
      child.ref();
      await exited;
    },
  };
};

/** What is lost for a process is lost for the child alone. */
function recoverable(event: WorkerEvent): WorkerEvent {
  if (event.type !== 'failed' && event.type !== 'error') return event;
  const { recoverable: _, ...data } = event.error.data;
  return { ...event, error: { ...event.error, data } };
}
