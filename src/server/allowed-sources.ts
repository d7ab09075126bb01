/**
 * Which adapters clients may have loaded: addresses and directories as the app wrote them down, `*` at
 * the end for everything below. Directories are compared where links lead, so no link leads out.
 */
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { resolveAdapterSource, type ResolvedSource } from '../adapter-source.js';
import { checkArray, checkString, invalidOptions } from '../check-shape.js';

export type AllowedSources = (source: ResolvedSource) => boolean;

/** Throws INVALID_OPTIONS. */
export function checkAllowedSources(value: unknown, field: string): AllowedSources {
  const rules = (checkArray(value, field) ?? []).map((entry, at) => {
    const text = checkString(entry, `${field}[${at}]`) ?? '';
    return ruleOf(text, `${field}[${at}]`);
  });
  if (rules.length === 0) {
    const example = "e.g. ['./adapters/*', 'hf://my-org/*']";
    throw invalidOptions(field, `${field} must name sources, ${example}.`, value);
  }
  return (source) => rules.some((rule) => rule(source));
}

function ruleOf(text: string, field: string): AllowedSources {
  const isPrefix = text.endsWith('/*');
  const place = isPrefix ? text.slice(0, -2) : text;
  if (/^[a-z\d]+:\/\//.test(place)) {
    // An organisation of the hub, or a bucket, is no source by itself.
    const shown = isPrefix ? `${place}/` : resolveAdapterSource(place, field).shown;
    return (source) => {
      if (source.local) return false;
      return isPrefix ? source.shown.startsWith(shown) : source.shown === shown;
    };
  }
  const directory = realPath(resolve(place));
  return (source) => {
    if (!source.local) return false;
    const asked = realPath(source.shown);
    return isPrefix ? asked.startsWith(`${directory}/`) : asked === directory;
  };
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
