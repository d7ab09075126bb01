/**
 * lorax-js.config.mjs (.js, .ts, .mts) -> a ServeConfig. TypeScript goes through jiti, which is loaded
 * for it alone.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { invalidOptions } from '../../check-shape.js';
import { LoraxError } from '../../errors.js';
import type { ServeConfig } from '../../server/serve-config.js';

export const CONFIG_NAMES = ['mjs', 'js', 'ts', 'mts'].map((ending) => `lorax-js.config.${ending}`);

export interface ConfigFile {
  file: string;
  config: ServeConfig;
}

/** `given`: it has to be there; otherwise one of the usual names may be in `directory`. */
export async function loadConfigFile(
  given: string | undefined,
  directory: string,
): Promise<ConfigFile | undefined> {
  const file =
    given === undefined
      ? CONFIG_NAMES.map((name) => path.join(directory, name)).find((each) => existsSync(each))
      : path.resolve(directory, given);
  if (file === undefined) return undefined;
  if (!existsSync(file)) {
    throw invalidOptions('--config', `There is no file ${file}.`, given);
  }
  const config = await readConfig(file);
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    const message = `${file}: its default export must be an object: export default defineConfig({ ... }).`;
    throw new LoraxError('INVALID_OPTIONS', message, { data: { field: 'config', file } });
  }
  return { file, config };
}

async function readConfig(file: string): Promise<unknown> {
  try {
    if (/\.[mc]?ts$/.test(file)) {
      const { createJiti } = await import('jiti');
      return await createJiti(import.meta.url).import(file, { default: true });
    }
    const module = (await import(pathToFileURL(file).href)) as { default?: unknown };
    return module.default;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LoraxError('INVALID_OPTIONS', `${file} cannot be read: ${reason}`, {
      data: { field: 'config', file },
      cause,
    });
  }
}
