/**
 * Where an adapter's files are: what an app wrote, checked, and what the worker is told.
 *
 * Only the shape is looked at, never the disk or the network. Credentials that are functions are asked
 * when the adapter is fetched. Called wherever adapters are registered.
 */
import { resolve } from 'node:path';
import type { WireSource } from '../worker/protocol.js';
import { checkFunction, checkObject, checkString, invalidOptions } from './check-shape.js';
import { isHubAddress, parseHubRepository } from './hub-repository.js';
import type { AdapterSource, HubSource, S3Source, UrlSource } from './types.js';

export interface ResolvedSource {
  /** Equal for equal sources, and for people to read: no credentials. */
  shown: string;
  /** On this machine already. */
  local: boolean;
  wire(): WireSource | Promise<WireSource>;
}

const KINDS = 'directory, hub, url or s3';

/** Throws INVALID_OPTIONS. */
export function resolveAdapterSource(source: AdapterSource, field: string): ResolvedSource {
  if (typeof source === 'string') return resolveText(checkString(source, field) ?? '', field);
  const known = ['directory', 'hub', 'url', 's3'].find((kind) => hasKey(source, kind));
  switch (known) {
    case 'directory': {
      const { directory } = checkObject(source, field, ['directory']);
      return directorySource(required(directory, `${field}.directory`));
    }
    case 'hub':
      return hubSource(source as HubSource, field);
    case 'url':
      return urlSource(source as UrlSource, field);
    case 's3':
      return s3Source(source as S3Source, field);
    default:
      // Names what is wrong: no object, or a key that is none.
      checkObject(source, field, ['directory', 'hub', 'url', 's3']);
      throw invalidOptions(
        field,
        `${field} must say where the adapter is: a directory, an address, or one of ${KINDS}.`,
        source,
      );
  }
}

export function directorySource(path: string): ResolvedSource {
  const directory = resolve(path);
  return { shown: directory, local: true, wire: () => ({ kind: 'directory', directory }) };
}

export function hasKey(value: unknown, key: string): boolean {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key);
}

/** An address by its scheme; anything else is a directory. */
function resolveText(text: string, field: string): ResolvedSource {
  if (isHubAddress(text)) return hubSource({ hub: text }, field);
  if (/^https?:/.test(text)) return urlSource({ url: text }, field);
  if (text.startsWith('s3:')) return s3Source({ s3: text }, field);
  if (/^[a-z][a-z\d+.-]+:\/\//.test(text)) {
    const message = `${field} must be a directory or an hf://, https:// or s3:// address.`;
    throw invalidOptions(field, message, text);
  }
  return directorySource(required(text, field));
}

function hubSource(source: HubSource, field: string): ResolvedSource {
  const fields = checkObject(source, field, ['hub', 'token']);
  const text = required(fields.hub, `${field}.hub`);
  const parsed = parseHubRepository(text);
  if (parsed === undefined) {
    throw invalidOptions(
      `${field}.hub`,
      `${field}.hub must be a repository of the hub, org/name or org/name@revision.`,
      text,
    );
  }
  const { repository, revision } = parsed;
  const token = fields.token === false ? false : checkString(fields.token, `${field}.token`);
  return {
    shown: `hf://${repository}@${revision}`,
    local: false,
    wire: () => ({
      ...{ kind: 'hub', repository, revision },
      ...(token === undefined ? {} : { token }),
    }),
  };
}

function urlSource(source: UrlSource, field: string): ResolvedSource {
  const fields = checkObject(source, field, ['url', 'headers']);
  const text = required(fields.url, `${field}.url`);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // What crosses a network in the clear can be changed on its way.
  const local = url !== undefined && /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  if (url?.protocol !== 'https:' && !(url?.protocol === 'http:' && local)) {
    const message = `${field}.url must be an https:// address (http:// on this machine).`;
    throw invalidOptions(`${field}.url`, message);
  }
  if (url.username !== '' || url.password !== '') {
    const message = `${field}.url: credentials belong in ${field}.headers, not in the address.`;
    throw invalidOptions(`${field}.url`, message);
  }
  const headers = checkHeaders(fields.headers, `${field}.headers`);
  const shown = new URL(url);
  shown.search = '';
  shown.hash = '';
  return {
    shown: shown.href,
    local: false,
    wire: () => ({ kind: 'url', url: url.href, headers }),
  };
}

function checkHeaders(headers: unknown, field: string): Record<string, string> {
  if (headers === undefined) return {};
  try {
    return Object.fromEntries(new Headers(headers as Record<string, string>));
  } catch {
    throw invalidOptions(field, `${field} must be an object from header names to values.`);
  }
}

function s3Source(source: S3Source, field: string): ResolvedSource {
  const fields = checkObject(source, field, ['s3', 'endpoint', 'region', 'credentials']);
  const text = required(fields.s3, `${field}.s3`);
  const match = /^s3:\/\/([a-z0-9][a-z0-9.-]+)(?:\/(.*))?$/.exec(text);
  if (match === null) {
    throw invalidOptions(`${field}.s3`, `${field}.s3 must be s3://bucket/prefix.`, text);
  }
  const [, bucket = '', path = ''] = match;
  const prefix = path.replace(/^\/+|\/+$/g, '');
  const endpoint = checkString(fields.endpoint, `${field}.endpoint`);
  if (endpoint !== undefined && !/^https?:\/\/[^/?#@]+(\/[^?#]*)?$/.test(endpoint)) {
    const message = `${field}.endpoint must be an http(s) address.`;
    throw invalidOptions(`${field}.endpoint`, message, endpoint);
  }
  const region = checkString(fields.region, `${field}.region`);
  const credentials = checkCredentials(source.credentials, `${field}.credentials`);
  return {
    shown: `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}`,
    local: false,
    wire: async () => ({
      ...{ kind: 's3', bucket, prefix },
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(credentials === undefined ? {} : { credentials: await credentials() }),
    }),
  };
}

type S3Credentials = NonNullable<Extract<WireSource, { kind: 's3' }>['credentials']>;

function checkCredentials(
  credentials: S3Source['credentials'],
  field: string,
): (() => Promise<S3Credentials>) | undefined {
  if (credentials === undefined) return undefined;
  const check = (value: unknown): S3Credentials => {
    // Those of AWS's SDK have more fields, e.g. when they expire.
    const fields = (typeof value === 'object' ? value : null) as Record<string, unknown> | null;
    const sessionToken = checkString(fields?.sessionToken, `${field}.sessionToken`);
    return {
      accessKeyId: required(fields?.accessKeyId, `${field}.accessKeyId`),
      secretAccessKey: required(fields?.secretAccessKey, `${field}.secretAccessKey`),
      ...(sessionToken === undefined ? {} : { sessionToken }),
    };
  };
  if (typeof credentials === 'function') {
    checkFunction(credentials, field);
    return async () => check(await credentials());
  }
  const checked = check(credentials);
  return () => Promise.resolve(checked);
}

function required(value: unknown, field: string): string {
  const text = checkString(value, field);
  if (text === undefined) throw invalidOptions(field, `${field} is missing.`);
  return text;
}
