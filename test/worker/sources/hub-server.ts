/**
 * A server with the hub's addresses and headers, and a second one, its CDN, to which files of Git LFS
 * are redirected: as huggingface.co does it. Both obey `fault`.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface HubRepository {
  /** name -> content; *.safetensors lie in Git LFS. */
  files: Record<string, Buffer>;
  commit: string;
  /** Who may read it; undefined = everybody. */
  token?: string;
  gated?: boolean;
  /** Only names are listed. */
  secretive?: boolean;
}

export interface HubRequestLog {
  host: 'hub' | 'cdn';
  method: string;
  path: string;
  range: string | undefined;
  authorization: string | undefined;
  status?: number;
}

/** undefined = as it should be. */
export type Fault = undefined | 'hang' | Faults;

export interface Faults {
  status?: number;
  headers?: Record<string, string>;
  /** The connection is cut after so many bytes of the answer. */
  resetAfter?: number;
  /** Nothing more comes after so many bytes. */
  hangAfter?: number;
  wrongBytes?: boolean;
  ignoreRange?: boolean;
  /** Every 10 ms. */
  bytesPerTick?: number;
}

export class HubServer {
  readonly repositories = new Map<string, HubRepository>();
  readonly log: HubRequestLog[] = [];
  /** Asked for each request, in order of arrival. */
  fault: (request: HubRequestLog) => Fault = () => undefined;
  url = '';
  cdnUrl = '';
  private readonly servers: Server[] = [];

  async start(): Promise<this> {
    this.url = await this.listen((request, response) => this.hub(request, response));
    this.cdnUrl = await this.listen((request, response) => this.cdn(request, response));
    return this;
  }

  async stop(): Promise<void> {
    for (const server of this.servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
    this.servers.length = 0;
  }

  /** A repository whose commit follows from its content. */
  add(name: string, files: Record<string, Buffer | string>, more: Partial<HubRepository> = {}) {
    const buffers = Object.fromEntries(
      Object.entries(files).map(([file, content]) => [file, Buffer.from(content)]),
    );
    const hash = createHash('sha1').update(name);
    for (const [file, content] of Object.entries(buffers)) hash.update(file).update(content);
    const repository = { files: buffers, commit: hash.digest('hex'), ...more };
    this.repositories.set(name, repository);
    return repository;
  }

  /** Requests for files, on either host. */
  downloads(pattern = /safetensors|\/blob\//): HubRequestLog[] {
    return this.log.filter(({ path }) => !path.startsWith('/api/') && pattern.test(path));
  }

  private async listen(
    handler: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const server = createServer(handler);
    this.servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  private enter(host: 'hub' | 'cdn', request: IncomingMessage) {
    const { method = '', headers } = request;
    const entry: HubRequestLog = {
      ...{ host, method, path: new URL(request.url ?? '', 'http://x').pathname },
      ...{ range: headers.range, authorization: headers.authorization },
    };
    this.log.push(entry);
    return { entry, fault: this.fault(entry) };
  }

  private hub(request: IncomingMessage, response: ServerResponse): void {
    const { entry, fault } = this.enter('hub', request);
    if (failed(response, fault)) return;
    const refuse = (status: number, code: string, message = code) => {
      entry.status = status;
      response.writeHead(status, { 'x-error-code': code, 'x-error-message': message }).end();
    };
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/([^/]+)$/.exec(entry.path);
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(entry.path);
    const [, name, revision] = api ?? file ?? [];
    const repository = this.repositories.get(name ?? '');
    const token = repository?.token;
    if (repository === undefined || (token && entry.authorization !== `Bearer ${token}`)) {
      return refuse(401, 'RepoNotFound', 'Repository not found');
    }
    const { commit, files } = repository;
    if (revision !== 'main' && revision !== commit) return refuse(404, 'RevisionNotFound');
    if (api !== null) {
      const siblings = Object.entries(files).map(([rfilename, content]) => ({
        rfilename,
        ...(repository.secretive ? {} : { size: content.length, blobId: gitSha1(content) }),
        ...(isLfs(rfilename) && !repository.secretive
          ? { lfs: { sha256: sha256(content), size: content.length } }
          : {}),
      }));
      const body = Buffer.from(JSON.stringify({ id: name, sha: commit, siblings }));
      return send(response, entry, body, fault, { 'content-type': 'application/json' });
    }
    if (repository.gated) return refuse(403, 'GatedRepo', 'Access to this model is restricted');
    const path = decodeURIComponent(file?.[3] ?? '');
    const content = files[path];
    if (content === undefined) return refuse(404, 'EntryNotFound');
    const headers = { 'x-repo-commit': commit };
    if (!isLfs(path)) {
      return send(response, entry, content, fault, { ...headers, etag: `"${gitSha1(content)}"` });
    }
    const location = `${this.cdnUrl}/blob/${sha256(content)}?signature=secret`;
    const linked = { 'x-linked-etag': `"${sha256(content)}"`, 'x-linked-size': content.length };
    entry.status = 302;
    response.writeHead(302, { ...headers, ...linked, location }).end();
  }

  private cdn(request: IncomingMessage, response: ServerResponse): void {
    const { entry, fault } = this.enter('cdn', request);
    if (failed(response, fault)) return;
    for (const { files } of this.repositories.values()) {
      for (const content of Object.values(files)) {
        if (entry.path !== `/blob/${sha256(content)}`) continue;
        return send(response, entry, content, fault, { etag: `"${sha256(content)}"` });
      }
    }
    response.writeHead(403).end();
  }
}

/** Sends `content`, or the part that was asked for, as the fault has it. */
export function send(
  response: ServerResponse,
  entry: HubRequestLog,
  content: Buffer,
  fault: Fault,
  headers: Record<string, string>,
): void {
  const faults: Faults = typeof fault === 'object' ? fault : {};
  const match = faults.ignoreRange ? null : /^bytes=(\d+)-(\d*)$/.exec(entry.range ?? '');
  const start = Number(match?.[1] ?? 0);
  const end = match?.[2] ? Math.min(Number(match[2]) + 1, content.length) : content.length;
  if (start >= content.length && start > 0) {
    entry.status = 416;
    response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end();
    return;
  }
  let part = content.subarray(start, end);
  if (faults.wrongBytes) part = Buffer.from(part.map((byte) => byte ^ 1));
  entry.status = match === null ? 200 : 206;
  const range = `bytes ${start}-${end - 1}/${content.length}`;
  response.writeHead(entry.status, {
    ...{ ...headers, 'content-length': part.length, 'accept-ranges': 'bytes' },
    ...(match === null ? {} : { 'content-range': range }),
  });
  const { resetAfter, hangAfter, bytesPerTick } = faults;
  if (entry.method === 'HEAD') {
    response.end();
  } else if (resetAfter !== undefined) {
    // What was written has arrived by then.
    response.write(part.subarray(0, resetAfter), () => setTimeout(() => response.destroy(), 60));
  } else if (hangAfter !== undefined) {
    response.write(part.subarray(0, hangAfter));
  } else if (bytesPerTick !== undefined) {
    let at = 0;
    const timer = setInterval(() => {
      response.write(part.subarray(at, (at += bytesPerTick)));
      if (at < part.length) return;
      clearInterval(timer);
      response.end();
    }, 10);
    response.on('close', () => clearInterval(timer));
  } else {
    response.end(part);
  }
}

/** Hangs, or answers with a status. */
export function failed(response: ServerResponse, fault: Fault): boolean {
  if (fault === 'hang') return true;
  if (typeof fault !== 'object' || fault.status === undefined) return false;
  response.writeHead(fault.status, fault.headers).end('no');
  return true;
}

export const sha256 = (content: Buffer) => createHash('sha256').update(content).digest('hex');

export const gitSha1 = (content: Buffer) =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');

const isLfs = (name: string) => name.endsWith('.safetensors');
