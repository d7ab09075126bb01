/** `lorax-js ls`: the adapters of a folder, or what lies in the hub's cache. */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { invalidOptions } from '../../check-shape.js';
import {
  hubSettings,
  readDecoderConfig,
  reportAdapter,
  reportCache,
  type AdapterReport,
} from '../../../worker/offline.js';
import type { Command } from '../command-line.js';
import { formatBytes, table } from '../format.js';
import { HUB_OPTIONS, hubOptions, interruptSignal, isDirectory, Places } from '../places.js';
import type { Terminal } from '../terminal.js';

export const ls: Command = {
  name: 'ls',
  positionals: '[folder]',
  maxPositionals: 1,
  summary: 'adapters of a folder, or (without one) models and adapters in the hub cache',
  options: {
    model: { type: 'string', value: '<dir|org/name>', help: 'check the adapters with this base' },
    ...HUB_OPTIONS,
  },
  async run({ positionals, values }, terminal) {
    const hub = hubOptions(values);
    const [folder] = positionals;
    if (folder === undefined) {
      await listCache(hubSettings(hub).cache, terminal);
      return 0;
    }
    if (!(await isDirectory(folder))) {
      throw invalidOptions('folder', `There is no directory ${path.resolve(folder)}.`, folder);
    }
    const base =
      typeof values.model === 'string'
        ? await readDecoderConfig(
            await new Places(hub, terminal, interruptSignal()).model(values.model),
          )
        : undefined;
    const adapters: (AdapterReport & { name: string })[] = [];
    for (const entry of (await readdir(folder)).sort()) {
      const directory = path.join(folder, entry);
      const files = (await isDirectory(directory)) ? await readdir(directory) : [];
      if (!files.includes('adapter_config.json')) continue;
      adapters.push({ name: entry, ...(await reportAdapter(directory, base)) });
    }
    terminal.result({ folder: path.resolve(folder), adapters }, () =>
      adapters.length === 0
        ? [`no adapters in ${folder}`]
        : table([
            ['NAME', 'RANK', 'SIZE', 'BASE', 'TARGETS'],
            ...adapters.map(({ name, ranks, fileBytes, targets, base: fit, problem }) => [
              ...[name, ranks.join(','), formatBytes(fileBytes)],
              problem === undefined ? (fit === 'fits' ? 'fits' : '-') : problem.code,
              targets.join(','),
            ]),
          ]),
    );
    return 0;
  },
};

async function listCache(cache: string, terminal: Terminal): Promise<void> {
  const repositories = await reportCache(cache);
  terminal.result({ cache, repositories }, () =>
    repositories.length === 0
      ? [`nothing in ${cache}`]
      : table([
          ['REPOSITORY', 'KIND', 'REVISIONS', 'SIZE', 'PARTIAL'],
          ...repositories.map(({ repository, kind, refs, commits, bytes, partialBytes }) => [
            ...[repository, kind],
            Object.keys(refs).join(',') || commits.map((commit) => commit.slice(0, 8)).join(','),
            formatBytes(bytes),
            partialBytes === 0 ? '-' : formatBytes(partialBytes),
          ]),
        ]),
  );
}
