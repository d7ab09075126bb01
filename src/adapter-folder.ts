/** The adapters of a folder: every subfolder whose name can be an adapter's. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isAdapterName } from './adapter-name.js';
import { invalidOptions } from './check-shape.js';

/** name -> directory. `field` names the folder in errors. */
export function adaptersInFolder(folder: string, field: string): Record<string, string> {
  try {
    const names = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isFile() && isAdapterName(entry.name))
      .map(({ name }) => name);
    return Object.fromEntries(names.map((name) => [name, join(folder, name)]));
  } catch (cause) {
    const message = `${field}: ${folder} cannot be read: ${(cause as Error).message}`;
    throw invalidOptions(field, message, folder);
  }
}
