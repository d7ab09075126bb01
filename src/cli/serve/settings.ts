/**
 * The settings of `lorax-js serve` that are one value: flag, environment variable and key of the file are
 * one row of one table.
 */
import type { OptionSpec } from '../command-line.js';
import type { ServeConfig } from '../../server/serve-config.js';

export interface SettingSpec extends OptionSpec {
  /** Shown as "set", never as it is. */
  secret?: boolean;
  choices?: readonly string[];
  /** As it is shown where nothing else says so. */
  otherwise: string;
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'];

/** Those of the file that have a structure of their own: adapters, sources, tenants. */
export type SettingKey = Exclude<keyof ServeConfig, 'adapters' | 'sources' | 'tenants'>;

export const SETTINGS: Readonly<Record<SettingKey, SettingSpec>> = {
  model: {
    ...{ type: 'string', value: '<dir|org/name>', otherwise: 'none' },
    help: 'the base model',
  },
  modelName: {
    ...{ type: 'string', value: '<name>', otherwise: "the model's last part" },
    help: 'what clients call the base model',
  },
  adapterFolder: {
    ...{ type: 'string', value: '<dir>', otherwise: 'none' },
    help: 'every subfolder is an adapter of its name',
  },
  adapterUpdates: {
    ...{ type: 'boolean', otherwise: 'false' },
    help: 'vLLM’s load_lora_adapter and unload_lora_adapter, for the admin key',
  },
  adapterSources: {
    ...{ type: 'string', multiple: true, value: '<place>', otherwise: 'none' },
    help: 'what they may be loaded from, e.g. hf://acme/* or ./adapters/*',
  },
  device: {
    ...{ type: 'string', choices: ['auto', 'cpu', 'cuda'], otherwise: 'auto' },
    help: 'auto, cpu or cuda',
  },
  precision: {
    ...{ type: 'string', choices: ['auto', 'bfloat16', 'float32'], otherwise: 'auto' },
    help: 'auto, bfloat16 or float32',
  },
  memory: { type: 'bytes', otherwise: 'chosen by the device', help: 'of the page pool' },
  memoryFraction: { type: 'number', otherwise: '0.9', help: 'of a GPU’s free memory' },
  hostMemory: {
    ...{ type: 'bytes', otherwise: 'half of what is available' },
    help: 'for adapters in host memory',
  },
  maxBatchTokens: { type: 'number', otherwise: 'chosen by the device', help: 'of one step' },
  maxQueued: { type: 'number', otherwise: '1024', help: 'requests that may wait' },
  deterministic: {
    ...{ type: 'boolean', otherwise: 'false' },
    help: 'tokens that do not depend on the batch, on a GPU too',
  },
  host: { type: 'string', value: '<address>', otherwise: '127.0.0.1', help: 'to listen at' },
  port: { type: 'number', otherwise: '8000', help: 'to listen at; 0 = any that is free' },
  tlsKey: { type: 'string', value: '<file>', otherwise: 'no TLS', help: 'private key, PEM' },
  tlsCert: { type: 'string', value: '<file>', otherwise: 'no TLS', help: 'certificate, PEM' },
  corsOrigins: {
    ...{ type: 'string', multiple: true, value: '<origin>', otherwise: 'none' },
    help: 'pages that may ask, * = any',
  },
  maxBody: { type: 'bytes', otherwise: '8 MiB', help: 'of a request’s body' },
  maxHeader: { type: 'bytes', otherwise: '16 KiB', help: 'of all headers of a request' },
  requestTimeoutMs: {
    ...{ type: 'number', otherwise: '30000' },
    help: 'for a request’s headers, and for its body',
  },
  stallTimeoutMs: {
    ...{ type: 'number', otherwise: '30000' },
    help: 'a reader that takes nothing for so long is cut off',
  },
  maxConnections: { type: 'number', otherwise: '4096', help: 'open at once' },
  graceMs: { type: 'number', otherwise: '30000', help: 'after SIGTERM, for what is under way' },
  apiKey: {
    ...{ type: 'string', value: '<key>', secret: true, otherwise: 'none' },
    help: 'the one key of a server without tenants; better as LORAX_API_KEY',
  },
  adminKey: {
    ...{ type: 'string', value: '<key>', secret: true, otherwise: 'none' },
    help: 'opens adapter updates, metrics and the dashboard; better as LORAX_ADMIN_KEY',
  },
  metrics: {
    ...{ type: 'string', choices: ['open', 'admin', 'off'] },
    ...{ otherwise: 'admin where there are keys, else open' },
    help: 'who may read /metrics: open, admin or off',
  },
  ui: {
    ...{ type: 'string', choices: ['open', 'admin', 'off'] },
    ...{ otherwise: 'admin where there are keys, else open' },
    help: 'who may see the dashboard at /ui: open, admin or off',
  },
  isolate: {
    ...{ type: 'boolean', otherwise: 'false' },
    help: 'the engine in a child process: its crash costs only the open streams',
  },
  logLevel: {
    ...{ type: 'string', choices: LOG_LEVELS, otherwise: 'info' },
    help: LOG_LEVELS.join(', '),
  },
  logPrompts: {
    ...{ type: 'boolean', otherwise: 'false' },
    help: 'prompts in logs, at level debug',
  },
};

export const SETTING_KEYS = Object.keys(SETTINGS) as SettingKey[];

/** maxBatchTokens -> max-batch-tokens */
export const flagOf = (key: string) =>
  key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** maxBatchTokens -> LORAX_MAX_BATCH_TOKENS */
export const variableOf = (key: string) =>
  `LORAX_${flagOf(key).replaceAll('-', '_').toUpperCase()}`;
