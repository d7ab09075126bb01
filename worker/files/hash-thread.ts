/**
 * SHA-256 of files, on a thread of its own: on the worker's, which hands tokens on, 84 MB would take 50 ms of
 * every stream's time.
 *
 * One thread for the process, made when first needed; it keeps nothing alive. Used by peft-adapter.ts.
 */
import { Worker } from 'node:worker_threads';

interface Request {
  id: number;
  prefix: string;
  file: string;
}

interface Reply {
  id: number;
  hex?: string;
  error?: { message: string; code?: string };
}

interface Waiting {
  resolve(hex: string): void;
  reject(error: Error): void;
}

/** As text: a bundle has no other file to start from. Files take turns, so none waits for another's disk. */
const CODE = `
const { createHash } = require('node:crypto');
const { createReadStream } = require('node:fs');
const { parentPort } = require('node:worker_threads');
parentPort.on('message', async ({ id, prefix, file }) => {
  try {
    const hash = createHash('sha256').update(prefix);
    for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(piece);
    parentPort.postMessage({ id, hex: hash.digest('hex') });
  } catch ({ message, code }) {
    parentPort.postMessage({ id, error: { message, code } });
  }
});
`;

const waiting = new Map<number, Waiting>();
let thread: Worker | undefined;
let lastId = 0;

/** Of `prefix`, in UTF-8, and then the file's bytes; hex. Rejects with what reading the file failed with. */
export function sha256OfFile(prefix: string, file: string): Promise<string> {
  const id = ++lastId;
  const request: Request = { id, prefix, file };
  return new Promise((resolve, reject) => {
    thread ??= start();
    waiting.set(id, { resolve, reject });
    // It keeps the process alive while somebody waits.
    thread.ref();
    thread.postMessage(request);
  });
}

function start(): Worker {
  const worker = new Worker(CODE, { eval: true, execArgv: [], name: 'lorax-hash' });
  worker.on('message', ({ id, hex, error }: Reply) => {
    const { resolve, reject } = waiting.get(id) as Waiting;
    waiting.delete(id);
    if (waiting.size === 0) worker.unref();
    if (hex !== undefined) resolve(hex);
    else reject(Object.assign(new Error(error?.message), { code: error?.code }));
  });
  const end = (error: Error) => {
    if (thread === worker) thread = undefined;
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  worker.on('error', end);
  worker.on('exit', () => end(new Error('the thread that hashes files has ended')));
  worker.unref();
  return worker;
}
