/**
 * What clients may load adapters from: beginnings of directories and of hf://, https:// and s3:// addresses
 * that the operator wrote down. Nothing where there are none.
 *
 * A directory is compared as it really is (links and `..` resolved), an address as it is parsed, whole
 * path segments at a time, so `hf://acme` does not open `hf://acme-evil`.
 */
import { realpath } from 'node:fs/promises';
import { isAbsolute, resolve, sep } from 'node:path';
import { resolveAdapterSource } from '../../adapter-source.js';
import { invalidOptions } from '../../check-shape.js';
import { parseHubRepository } from '../../hub-repository.js';
import type { AdapterSource } from '../../types.js';
import { HttpError } from '../http-error.js';

export class AllowedSources {
  readonly #directories: string[] = [];
  readonly #addresses: string[] = [];

  /** Throws INVALID_OPTIONS. */
  constructor(prefixes: readonly string[], field: string) {
    prefixes.forEach((prefix, i) => {
      const name = `${field}[${i}]`;
      if (/^(hf|https|s3):\/\/[^/]+/.test(prefix)) this.#addresses.push(prefix);
      else if (/^[a-z][a-z\d+.-]*:/i.test(prefix) && !isAbsolute(prefix)) {
        const message = `${name} must be a directory, or begin with hf://, https:// or s3:// and a name.`;
        throw invalidOptions(name, message, prefix);
      } else this.#directories.push(resolve(prefix));
    });
  }

  /** Throws 403; the source as it may be used. */
  async check(source: unknown): Promise<AdapterSource> {
    if (typeof source !== 'string') {
      // Credentials of a client's own, or a function: none of them comes by HTTP.
      throw refused('An adapter is named by a path or an address.');
    }
    const isRepository = !source.includes('://') && parseHubRepository(source) !== undefined;
    const { shown, local } = resolveAdapterSource(source, 'lora_path');
    if (local) {
      const directory = await this.directory(shown);
      if (directory !== undefined) return directory;
      // vLLM's clients write a repository of the hub without hf://.
      if (!isRepository) throw refused(SOURCE_REFUSED);
      return this.check(`hf://${source}`);
    }
    if (source.includes('?') || source.includes('#') || source.includes('..')) {
      throw refused(SOURCE_REFUSED);
    }
    const allowed = this.#addresses.some((prefix) => isBelow(withoutMain(shown), prefix, '/'));
    if (!allowed) throw refused(SOURCE_REFUSED);
    return source;
  }

  /** As it really is, where it may be used. */
  private async directory(path: string): Promise<string | undefined> {
    const real = await realpath(path).catch(() => undefined);
    if (real === undefined) return undefined;
    for (const prefix of this.#directories) {
      const root = await realpath(prefix).catch(() => undefined);
      if (root !== undefined && isBelow(real, root, sep)) return real;
    }
    return undefined;
  }
}

/** The same words whether it is there or not: paths are not to be found out. */
const SOURCE_REFUSED = 'Adapters are not loaded from there: see adapterSources.';

function refused(message: string): HttpError {
  return new HttpError(403, message, { code: 'source_not_allowed', param: 'lora_path' });
}

/** A repository without a revision is that of any. */
const withoutMain = (shown: string) => shown.replace(/^(hf:\/\/[^@]*)@main$/, '$1');

function isBelow(path: string, prefix: string, separator: string): boolean {
  const folder = prefix.endsWith(separator) ? prefix : prefix + separator;
  if (path === prefix || path.startsWith(folder)) return true;
  // hf://acme/name with any revision of it
  return /^hf:/.test(path) && path.split('@', 1)[0] === prefix;
}
