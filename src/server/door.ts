/**
 * Overload is refused at the door: while as many wait as may, a request that would have to wait hears so
 * before it becomes a Request and goes through middleware, at a quarter of what that costs. What refusals
 * cost is taken from those who are served.
 *
 * The answer is the one that the route itself would give. What has an Origin goes the long way, where CORS
 * is. Asked by node-handler.ts for each request; made by create-server.ts.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { LoraxError } from '../errors.js';
import type { Admissions } from './admissions.js';
import { errorBody, toHttpError, type HttpError } from './http-error.js';
import { loraxErrorJson } from './lorax/lorax-error.js';

export interface Refusal {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** `path` without its query; undefined: come in. */
export type Door = (method: string, path: string) => Refusal | undefined;

/** The routes that wait for a place, and how their errors look. */
export const WAITING_ROUTES: ReadonlyMap<string, (failure: HttpError) => object> = new Map<
  string,
  (failure: HttpError) => object
>([
  ['/v1/chat/completions', errorBody],
  ['/v1/completions', errorBody],
  ['/v1/responses', errorBody],
  ['/generate', loraxErrorJson],
  ['/generate_stream', loraxErrorJson],
  ['/', loraxErrorJson],
]);

export function doorOf(admissions: Admissions, basePath = ''): Door {
  const below = new Map([...WAITING_ROUTES].map(([path, shape]) => [basePath + path, shape]));
  let refused: LoraxError | undefined;
  let refusals = new Map<string, Refusal>();
  return (method, path) => {
    const shape = method === 'POST' ? below.get(path) : undefined;
    const error = shape && admissions.refuse();
    if (shape === undefined || error === undefined) return undefined;
    // The same until somebody is admitted: what is written is made once.
    if (error !== refused) [refused, refusals] = [error, new Map()];
    let refusal = refusals.get(path);
    if (refusal === undefined) refusals.set(path, (refusal = refusalOf(error, shape)));
    return refusal;
  };
}

function refusalOf(error: LoraxError, shape: (failure: HttpError) => object): Refusal {
  const failure = toHttpError(error);
  const body = JSON.stringify(shape(failure));
  const length = String(Buffer.byteLength(body));
  const type = { 'content-type': 'application/json', 'content-length': length };
  return { status: failure.status, headers: { ...failure.headers, ...type }, body };
}

/** Whether it was refused. */
export function refusedAtDoor(
  door: Door,
  { method = '', url = '', headers }: IncomingMessage,
  response: ServerResponse,
): boolean {
  if (headers.origin !== undefined) return false;
  const query = url.indexOf('?');
  const refusal = door(method, query < 0 ? url : url.slice(0, query));
  if (refusal === undefined) return false;
  const requestId = givenId(headers['x-request-id']) ?? randomUUID();
  response.writeHead(refusal.status, { ...refusal.headers, 'x-request-id': requestId });
  response.end(refusal.body);
  return true;
}

/** A caller's own, where it is fit for a header and a log line. */
export function givenId(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' && /^[\w.:-]{1,128}$/.test(header) ? header : undefined;
}
