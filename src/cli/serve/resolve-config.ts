/**
 * Flags, environment and file -> one ServeConfig, and for each setting what it is and where it is from.
 *
 * Flags go before the environment, which goes before the file. Empty variables count as unset. Only
 * types are checked here; what a value means is checked by what takes it (engine, server, access),
 * and `blame` adds to its complaint where the value came from.
 */
import {
  checkBoolean,
  checkNumber,
  checkObject,
  checkOneOf,
  checkString,
  invalidOptions,
} from '../../check-shape.js';
import { checkAdapterName } from '../../adapter-name.js';
import { convertOption, parseBytes } from '../command-line.js';
import type { OptionSpecs, OptionValue, OptionValues } from '../command-line.js';
import { formatBytes } from '../format.js';
import { LoraxError } from '../../errors.js';
import type { AdapterSource } from '../../types.js';
import type { ConfigFile } from './config-file.js';
import type { ServeConfig } from '../../server/serve-config.js';
import { flagOf, SETTING_KEYS, SETTINGS, variableOf } from './settings.js';
import type { SettingKey, SettingSpec } from './settings.js';

export interface SettingOrigin {
  key: string;
  /** As people may see it. */
  shown: string;
  /** '--port', 'LORAX_PORT', the file's path, or 'default'. */
  origin: string;
}

export interface ResolvedConfig {
  config: ServeConfig;
  origins: SettingOrigin[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The flags of `serve`: every setting, and those that stand for structures. */
export const SERVE_FLAGS: OptionSpecs = {
  config: { type: 'string', value: '<file>', help: 'default: lorax-js.config.mjs (.js, .ts) here' },
  adapter: {
    ...{ type: 'string', multiple: true, value: '<name=source>' },
    help: 'an adapter: a directory, hf://org/name, https:// or s3:// address',
  },
  ...Object.fromEntries(SETTING_KEYS.map((key) => [flagOf(key), SETTINGS[key]])),
};

const STRUCTURES = ['adapters', 'sources', 'tenants'] as const;

/** Throws INVALID_OPTIONS. */
export function resolveConfig(
  flags: OptionValues,
  env: Environment,
  file: ConfigFile | undefined,
): ResolvedConfig {
  const known = [...SETTING_KEYS, ...STRUCTURES];
  const inFile = checkObject(file?.config ?? {}, file?.file ?? 'config', known);
  const config: Record<string, unknown> = {};
  const origins: SettingOrigin[] = [];
  for (const key of SETTING_KEYS) {
    const spec = SETTINGS[key];
    const [value, origin] = choose(key, spec, flags, env, inFile[key], file?.file);
    if (value !== undefined) config[key] = value;
    origins.push({ key, shown: show(value, spec), origin });
  }
  const adapters = readAdapters(flags.adapter, inFile.adapters, file?.file);
  config.adapters = Object.fromEntries(adapters.map(({ name, source }) => [name, source]));
  for (const { name, source, origin } of adapters) {
    const shown = typeof source === 'string' ? source : Object.values(source)[0];
    origins.push({ key: `adapters.${name}`, shown: String(shown), origin });
  }
  for (const key of ['sources', 'tenants'] as const) {
    if (inFile[key] === undefined) continue;
    config[key] = inFile[key];
    const count = Array.isArray(inFile[key]) ? inFile[key].length : 0;
    origins.push({ key, shown: `${count}`, origin: file?.file ?? 'default' });
  }
  return { config: config as ServeConfig, origins };
}

function choose(
  key: SettingKey,
  spec: SettingSpec,
  flags: OptionValues,
  env: Environment,
  inFile: unknown,
  file: string | undefined,
): [unknown, string] {
  const [flag, variable] = [flagOf(key), variableOf(key)];
  const text = env[variable];
  if (flags[flag] !== undefined) {
    return [checked(flags[flag], spec, `--${flag}`), `--${flag}`];
  }
  if (text !== undefined && text !== '') {
    const value = spec.multiple
      ? text.split(',').map((each) => each.trim())
      : convertOption(spec, text, variable);
    return [checked(value, spec, variable), variable];
  }
  if (inFile !== undefined) {
    return [checkFileValue(inFile, spec, `${file}: ${key}`), file as string];
  }
  return [undefined, 'default'];
}

function checked(value: OptionValue, spec: SettingSpec, field: string): OptionValue {
  if (spec.choices !== undefined) checkOneOf(value, field, spec.choices);
  return value;
}

function checkFileValue(value: unknown, spec: SettingSpec, field: string): unknown {
  const any = { min: -Number.MAX_VALUE, max: Number.MAX_VALUE };
  if (spec.multiple === true) {
    if (Array.isArray(value)) return value.map((each, i) => checkString(each, `${field}[${i}]`));
    throw invalidOptions(field, `${field} must be an array of strings.`, value);
  }
  switch (spec.type) {
    case 'string':
      return checked(checkString(value, field) as string, spec, field);
    case 'boolean':
      return checkBoolean(value, field);
    case 'number':
      return checkNumber(value, field, any);
    case 'bytes':
      return typeof value === 'string' ? parseBytes(value, field) : checkNumber(value, field, any);
  }
}

/** Those of the command line take the place of the file's of the same name. */
function readAdapters(flags: OptionValue | undefined, inFile: unknown, file: string | undefined) {
  const found = new Map<string, { name: string; source: AdapterSource; origin: string }>();
  if (inFile !== undefined) {
    if (typeof inFile !== 'object' || inFile === null || Array.isArray(inFile)) {
      throw invalidOptions('adapters', `${file}: adapters must be an object: name -> source.`);
    }
    for (const [name, source] of Object.entries(inFile) as [string, AdapterSource][]) {
      checkAdapterName(name, `${file}: adapters`);
      found.set(name, { name, source, origin: file as string });
    }
  }
  for (const text of Array.isArray(flags) ? flags : []) {
    const at = text.indexOf('=');
    if (at < 1 || at === text.length - 1) {
      throw invalidOptions('--adapter', '--adapter must be name=source.', text);
    }
    const name = checkAdapterName(text.slice(0, at), '--adapter');
    found.set(name, { name, source: text.slice(at + 1), origin: '--adapter' });
  }
  return [...found.values()];
}

function show(value: unknown, { secret, otherwise, type }: SettingSpec): string {
  if (value === undefined) return otherwise;
  if (secret === true) return 'set';
  if (type === 'bytes') return formatBytes(value as number);
  return Array.isArray(value) ? value.join(', ') : String(value);
}

/** The complaint of what took a value, with where the value came from. `names`: its field -> our key. */
export function blame(
  error: unknown,
  { origins }: ResolvedConfig,
  names: Readonly<Record<string, string>>,
): unknown {
  if (!LoraxError.isInstance(error) || error.code !== 'INVALID_OPTIONS') return error;
  const field = String(error.data.field).replace(/^options\./, '');
  const found = origins.find(({ key }) => key === (names[field] ?? field));
  if (found === undefined || found.origin === 'default') return error;
  return new LoraxError('INVALID_OPTIONS', `${found.origin}: ${error.message}`, {
    data: { ...error.data, origin: found.origin },
    cause: error,
  });
}
