/**
 * `serveOnNode(server, { port })`: a server that listens with node:http, or node:https with a key.
 *
 * Answers what HTTP itself refuses (a header too long, no HTTP at all) in the same shape as everything
 * else. `close()` takes no new connections and waits for what is open, up to its grace period.
 */
import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { checkNumber, checkObject, checkString, invalidOptions } from '../check-shape.js';
import { errorBody, HttpError } from './http-error.js';
import { toNodeHandler } from './node-handler.js';

export interface ListenOptions {
  /** Default 8000; 0 = any that is free. */
  port?: number;
  /** Default 127.0.0.1: this machine alone. */
  host?: string;
  /** PEM; both or none. */
  tls?: { key: string; cert: string };
  /** For a request's headers, and again for its body. Default 30 000. */
  requestTimeoutMs?: number;
  /** Of all headers of a request. Default 16 KiB. */
  maxHeaderBytes?: number;
}

export interface NodeServer {
  /** e.g. http://127.0.0.1:8000 */
  url: string;
  port: number;
  /** Of node:http or node:https, for whoever has to tune it. */
  server: Server;
  /** Ends when what is open has ended, or has been cut off after `graceMs` (default 0). */
  close(options?: { graceMs?: number }): Promise<void>;
}

const KEEP_ALIVE_MS = 75_000;
const IDLE_CHECK_MS = 50;

const KEYS = ['port', 'host', 'tls', 'requestTimeoutMs', 'maxHeaderBytes'];

/** Rejects where it cannot listen. */
export async function serveOnNode(
  handler: Parameters<typeof toNodeHandler>[0],
  options: ListenOptions = {},
): Promise<NodeServer> {
  const { port, host, tls, requestTimeoutMs, maxHeaderBytes } = checkListenOptions(options);
  const settings = {
    headersTimeout: requestTimeoutMs,
    requestTimeout: 2 * requestTimeoutMs,
    // How often Node looks at those two.
    connectionsCheckingInterval: Math.min(5000, Math.ceil(requestTimeoutMs / 4)),
    maxHeaderSize: maxHeaderBytes,
    // Longer than clients and proxies keep theirs: who closes first must not be the server.
    keepAliveTimeout: KEEP_ALIVE_MS,
    // Refused all the same, with a body that says so.
    requireHostHeader: false,
    ...tls,
  };
  const onRequest = toNodeHandler(handler);
  const server: Server =
    tls === undefined
      ? createHttpServer(settings, onRequest)
      : createHttpsServer(settings, onRequest);
  server.on('clientError', answerClientError);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { port: actualPort } = server.address() as AddressInfo;
  const shownHost = host.includes(':') ? `[${host}]` : host;
  return {
    url: `${tls === undefined ? 'http' : 'https'}://${shownHost}:${actualPort}`,
    port: actualPort,
    server,
    close: ({ graceMs = 0 } = {}) => close(server, graceMs),
  };
}

function checkListenOptions(options: ListenOptions) {
  const fields = checkObject(options, 'options', KEYS);
  const ms = { min: 1, max: 2 ** 31 - 1, integer: true };
  const port = { min: 0, max: 65535, integer: true };
  let tls: { key: string; cert: string } | undefined;
  if (fields.tls !== undefined) {
    const given = checkObject(fields.tls, 'options.tls', ['key', 'cert']);
    const key = checkString(given.key, 'options.tls.key');
    const cert = checkString(given.cert, 'options.tls.cert');
    if (key === undefined || cert === undefined) {
      throw invalidOptions('options.tls', 'options.tls needs both key and cert, as PEM.');
    }
    tls = { key, cert };
  }
  return {
    port: checkNumber(fields.port, 'options.port', port) ?? 8000,
    host: checkString(fields.host, 'options.host') ?? '127.0.0.1',
    tls,
    requestTimeoutMs:
      checkNumber(fields.requestTimeoutMs, 'options.requestTimeoutMs', ms) ?? 30_000,
    maxHeaderBytes:
      checkNumber(fields.maxHeaderBytes, 'options.maxHeaderBytes', { ...ms, max: 1 << 20 }) ??
      16 << 10,
  };
}

const CLIENT_ERRORS: Record<string, [status: string, message: string]> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'The headers are too long.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request took too long to arrive.'],
};

function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, message] = CLIENT_ERRORS[error.code ?? ''] ?? [
    '400 Bad Request',
    'This is no HTTP request.',
  ];
  const body = JSON.stringify(errorBody(new HttpError(Number(status.slice(0, 3)), message)));
  const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\nconnection: close\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}

/** A connection that is kept alive is idle only once its last answer has ended, so they are looked for. */
function close(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => server.closeAllConnections(), graceMs);
    const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
    server.close(() => {
      clearTimeout(cutOff);
      clearInterval(idle);
      resolve();
    });
    server.closeIdleConnections();
  });
}
