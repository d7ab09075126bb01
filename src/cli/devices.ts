/** What this machine has to run on, as far as can be seen without loading anything. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cudaPluginPaths } from '../platform-packages.js';

export interface Gpu {
  name: string;
  totalBytes: number;
  freeBytes: number;
  driver: string;
}

/** As nvidia-smi lists them; none where it is not there or fails. */
export function listGpus(): Gpu[] {
  const fields = 'name,memory.total,memory.free,driver_version';
  const args = [`--query-gpu=${fields}`, '--format=csv,noheader,nounits'];
  const { status, stdout } = spawnSync('nvidia-smi', args, { encoding: 'utf8', timeout: 10_000 });
  if (status !== 0 || typeof stdout !== 'string') return [];
  return parseGpus(stdout);
}

export function parseGpus(csv: string): Gpu[] {
  return csv
    .split('\n')
    .map((line) => line.split(',').map((cell) => cell.trim()))
    .filter((cells) => cells.length === 4)
    .map(([name = '', total, free, driver = '']) => ({
      ...{ name, driver },
      totalBytes: Number(total) * 2 ** 20,
      freeBytes: Number(free) * 2 ** 20,
    }));
}

export function cudaPlugin(): string | undefined {
  return cudaPluginPaths().find((file) => existsSync(file));
}
