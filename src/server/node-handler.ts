/**
 * `toNodeHandler(server)`: the server as a handler of node:http, which is also what Express, Connect and
 * Fastify's `reply.raw` take. serve-on-node.ts listens with it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import type { LoraxServer } from './create-server.js';
import { refusedAtDoor } from './door.js';
import { errorResponse, HttpError } from './http-error.js';

export type NodeHandler = (incoming: IncomingMessage, outgoing: ServerResponse) => void;

/** Answers everything, what it does not know with 404: mount it where all below is its own. */
export function toNodeHandler({
  fetch,
  door,
}: Pick<LoraxServer, 'fetch'> & Partial<Pick<LoraxServer, 'door'>>): NodeHandler {
  const listener = getRequestListener(fetch, {
    // The user's globals stay the user's.
    overrideGlobalObjects: false,
    errorHandler: (error) => errorResponse(malformed(error)),
  });
  return (incoming, outgoing) => {
    if (door !== undefined && refusedAtDoor(door, incoming, outgoing)) return;
    giveBackBody(incoming);
    void listener(incoming, outgoing);
  };
}

/** What express.json() or Fastify have read already is read again from here. */
function giveBackBody(incoming: IncomingMessage & { body?: unknown; rawBody?: unknown }): void {
  const { body, rawBody } = incoming;
  if (body === undefined || rawBody !== undefined || !incoming.readableEnded) return;
  const isBytes = typeof body === 'string' || Buffer.isBuffer(body);
  incoming.rawBody = Buffer.from(isBytes ? body : JSON.stringify(body));
}

/** A request line or Host header that is no URL. */
function malformed(error: unknown): unknown {
  const isRequest = error instanceof Error && error.name === 'RequestError';
  return isRequest ? new HttpError(400, `This is no HTTP request: ${error.message}.`) : error;
}
