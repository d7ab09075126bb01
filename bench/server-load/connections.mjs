// HTTP/1.1 requests over connections that are kept, with as little as a client can do: the load must not take
// the cores of what is loaded. `node:http` takes a quarter of a millisecond for each request.
import { connect } from 'node:net';

const END_OF_HEAD = Buffer.from('\r\n\r\n');
const END_OF_CHUNKS = Buffer.from('0\r\n\r\n');

export class Connections {
  #idle = [];

  constructor(port) {
    this.port = port;
  }

  /** Resolves to { status, retryAfter, firstMs, text }; rejects where the connection ends before the answer. */
  post(path, body) {
    let connection;
    // The server closes those that were idle for long.
    do connection = this.#idle.pop();
    while (connection?.socket.readable === false);
    connection ??= new Connection(this.port, (each) => this.#idle.push(each));
    return connection.ask(
      `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  }
}

class Connection {
  #parts = [];
  /** The newest bytes, however they were cut. */
  #tail = Buffer.alloc(0);
  #head;
  #open;

  constructor(port, onIdle) {
    this.onIdle = onIdle;
    this.socket = connect(port, '127.0.0.1').setNoDelay(true);
    this.socket.on('data', (part) => this.#read(part));
    this.socket.on('error', (error) => this.#open?.reject(error));
    this.socket.on('close', () => this.#open?.reject(new Error('closed before its answer')));
  }

  ask(request) {
    return new Promise((resolve, reject) => {
      this.#open = { resolve, reject, at: performance.now() };
      this.socket.write(request);
    });
  }

  #read(part) {
    this.#parts.push(part);
    if (this.#head === undefined) {
      const bytes = Buffer.concat(this.#parts);
      const end = bytes.indexOf(END_OF_HEAD);
      if (end < 0) return;
      this.#head = headOf(bytes.latin1Slice(0, end), performance.now() - this.#open.at);
      this.#parts = [bytes.subarray(end + END_OF_HEAD.length)];
    }
    const { length } = this.#head;
    this.#tail = Buffer.concat([this.#tail, this.#parts.at(-1)]).subarray(-END_OF_CHUNKS.length);
    const isWhole =
      length === undefined
        ? this.#tail.equals(END_OF_CHUNKS)
        : this.#parts.reduce((sum, each) => sum + each.length, 0) >= length;
    if (isWhole) this.#end();
  }

  #end() {
    const [head, bytes, { resolve }] = [this.#head, Buffer.concat(this.#parts), this.#open];
    [this.#head, this.#parts, this.#open] = [undefined, [], undefined];
    this.#tail = Buffer.alloc(0);
    this.onIdle(this);
    resolve({ ...head, text: head.length === undefined ? unchunked(bytes) : bytes.toString() });
  }
}

function headOf(text, firstMs) {
  const header = (name) => new RegExp(`^${name}: *(.*)$`, 'im').exec(text)?.[1];
  const length = header('content-length');
  return {
    ...{ status: Number(text.slice(9, 12)), retryAfter: header('retry-after'), firstMs },
    length: length === undefined ? undefined : Number(length),
  };
}

/** RFC 9112, 7.1. */
function unchunked(bytes) {
  const parts = [];
  for (let at = 0; ;) {
    const end = bytes.indexOf('\r\n', at);
    const size = parseInt(bytes.latin1Slice(at, end), 16);
    if (!(size > 0)) return Buffer.concat(parts).toString();
    parts.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
}
