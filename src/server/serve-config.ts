/**
 * What `lorax-js serve` can be told in lorax-js.config.mjs (or .ts), and the function that types it.
 *
 * Everything that is one value is a flag and an environment variable too (settings.ts); flags go
 * before the environment, which goes before the file. Exported by `lorax-js/server`.
 */
import type { AdapterLookup, AdapterSource, Device, Precision } from '../types.js';

/** A key as it is, `sha256:<hex>` of one, or `env:<NAME>` where it is. */
export type KeyText = string;

export interface TenantConfig {
  /** Its name in logs and metrics; its adapters and caches are its own. */
  id: string;
  keys: KeyText[];
  /** Adapters it may use: names, or beginnings of names with a `*`. Default: all that are shared. */
  adapters?: string[];
  /** May it use the base model? Default true. */
  base?: boolean;
  /** Its share where requests wait: 0.001 to 1000, default 1. */
  weight?: number;
  requestsPerMinute?: number;
  /** Prompt and answer together. */
  tokensPerMinute?: number;
  /** Requests at once. */
  maxConcurrent?: number;
}

/** A number of bytes, or text such as '8GB' or '512MiB'. */
export type Size = number | string;

export interface ServeConfig {
  /** A model directory or org/name of the hub. */
  model?: string;
  device?: Device;
  precision?: Precision;
  /** Of the page pool. */
  memory?: Size;
  memoryFraction?: number;
  hostMemory?: Size;
  maxBatchTokens?: number;
  maxQueued?: number;
  deterministic?: boolean;
  /** What clients call the base model. */
  modelName?: string;
  /** name -> where it is. */
  adapters?: Record<string, AdapterSource>;
  /** Every subfolder is an adapter of its name, those that come later too. */
  adapterFolder?: string;
  /** Where other names are looked for. */
  sources?: AdapterLookup[];
  /** Clients with the admin scope may load and unload adapters. */
  adapterUpdates?: boolean;
  /** What they may load from: './adapters/*', 'hf://acme/*', 'https://host/adapters/*'. */
  adapterSources?: string[];
  host?: string;
  port?: number;
  /** PEM files; both or none. */
  tlsKey?: string;
  tlsCert?: string;
  /** Pages of which origins may ask, '*' = any. Default: none. */
  corsOrigins?: string[];
  maxBody?: Size;
  maxHeader?: Size;
  /** For a request's headers, and for its body. */
  requestTimeoutMs?: number;
  /** A reader that takes nothing of its answer for so long is cut off. */
  stallTimeoutMs?: number;
  maxConnections?: number;
  /** After SIGTERM, for what is under way. */
  graceMs?: number;
  /** The one key of a server without tenants. */
  apiKey?: KeyText;
  /** Opens what changes or shows the server: adapter updates, metrics, the dashboard. */
  adminKey?: KeyText;
  tenants?: TenantConfig[];
  /** Who may read /metrics. Default: 'admin' where there are keys, else 'open'. */
  metrics?: 'open' | 'admin' | 'off';
  /** Who may see what the dashboard at /ui shows. Default: 'admin' where there are keys, else 'open'. */
  ui?: 'open' | 'admin' | 'off';
  /** The engine in a child process. */
  isolate?: boolean;
  logLevel?: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Prompts and answers in logs. Default false. */
  logPrompts?: boolean;
}

/** For types alone: gives back what it is given. */
export function defineConfig(config: ServeConfig): ServeConfig {
  return config;
}
