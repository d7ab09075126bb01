/**
 * What the environment says of the Hugging Face hub and of caches, by the names that Python's
 * huggingface_hub reads; options go before it.
 */
import { readFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';

export interface HubSettings {
  /** Without a slash at its end. */
  endpoint: string;
  cache: string;
  offline: boolean;
}

export interface HubOptions {
  endpoint?: string;
  cacheDirectory?: string;
  offline?: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

export function hubSettings(options: HubOptions, env: Environment = process.env): HubSettings {
  const endpoint = options.endpoint ?? env.HF_ENDPOINT ?? 'https://huggingface.co';
  return {
    endpoint: endpoint.replace(/\/+$/, ''),
    cache: options.cacheDirectory ?? hubCache(env),
    offline: options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
  };
}

/** HF_TOKEN, else what `hf auth login` has left. */
export async function hubToken(env: Environment = process.env): Promise<string | undefined> {
  const given = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (given) return given.trim();
  const file = env.HF_TOKEN_PATH || path.join(hubHome(env), 'token');
  return (await readFile(file, 'utf8').catch(() => '')).trim() || undefined;
}

/** This package's own folder for what can be made again. */
export function ownCache(env: Environment = process.env): string {
  const { XDG_CACHE_HOME: caches } = env;
  if (caches !== undefined && path.isAbsolute(caches)) return path.join(caches, 'lorax-js');
  const home = homedir();
  return home === '' ? path.join(tmpdir(), 'lorax-js') : path.join(home, '.cache', 'lorax-js');
}

function hubCache(env: Environment): string {
  const given = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE;
  return given ? path.resolve(withHome(given)) : path.join(hubHome(env), 'hub');
}

function hubHome(env: Environment): string {
  if (env.HF_HOME) return path.resolve(withHome(env.HF_HOME));
  const caches = env.XDG_CACHE_HOME || path.join(homedir() || tmpdir(), '.cache');
  return path.join(withHome(caches), 'huggingface');
}

function withHome(file: string): string {
  return file === '~' || file.startsWith('~/') ? path.join(homedir(), file.slice(1)) : file;
}

function isTrue(value: string | undefined): boolean {
  return ['1', 'ON', 'YES', 'TRUE'].includes((value ?? '').toUpperCase());
}
