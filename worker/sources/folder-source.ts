/**
 * A folder of adapters: a name -> the directory of that name in it, and nothing else.
 *
 * Names come from apps' clients. Neither `..` nor a link leads out of the folder; what is not there, or
 * leads out, is ADAPTER_NOT_FOUND, so that a name tells nothing of other directories. Called by
 * source-fetcher.ts.
 */
import { realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { LoraxError } from '../../src/errors.js';
import { ADAPTER_CONFIG } from './wanted-files.js';

export async function findInFolder(folder: string, name: string): Promise<string> {
  const notFound = () =>
    new LoraxError('ADAPTER_NOT_FOUND', `There is no adapter ${JSON.stringify(name)}.`, {
      data: { adapter: name },
    });
  const parts = name.split('/');
  if (parts.some((part) => part === '' || part.startsWith('.') || /[\\:\0]/.test(part))) {
    throw notFound();
  }
  let root: string;
  try {
    root = await realpath(folder);
  } catch (cause) {
    throw new LoraxError('ADAPTER_NOT_FOUND', `The folder of adapters ${folder} is not there.`, {
      ...{ data: { adapter: name, folder }, cause },
    });
  }
  let directory: string;
  try {
    directory = await realpath(path.join(root, ...parts));
    await stat(path.join(directory, ADAPTER_CONFIG));
  } catch {
    throw notFound();
  }
  if (!directory.startsWith(root + path.sep)) throw notFound();
  return directory;
}
