// Where adapters are brought to before they are measured: host memory alone, or a disk alone. Used by the files
// beside this one.
import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { inParallel } from '../make-adapters.mjs';

/** `adapters`: { name, folder } each. Afterwards they are in host memory and in no page of the pool. */
export async function registerAnew(engine, adapters) {
  const known = new Set((await engine.adapters.list()).map(({ name }) => name));
  await inParallel(adapters, 16, async ({ name, folder }) => {
    if (known.has(name)) await engine.adapters.remove(name);
    await engine.adapters.add(name, folder);
  });
}

export const weightsOf = (folder) => path.join(folder, 'adapter_model.safetensors');

/** posix_fadvise(DONTNEED) over the whole file, after it was written back. */
export function dropFromCache(file) {
  dd([`of=${file}`, 'conv=notrunc,fdatasync', 'oflag=nocache', 'count=0', 'if=/dev/null']);
}

/** ms that reading the file takes which is in no cache, as dd has measured them: without its start. */
export function readOnce(file) {
  dropFromCache(file);
  const said = dd([`if=${file}`, 'of=/dev/null', 'bs=4M', 'iflag=direct']);
  const [, seconds] = /copied, ([0-9.e+-]+) s/.exec(said) ?? [];
  if (seconds === undefined) throw new Error(`dd said: ${said}`);
  return Number(seconds) * 1e3;
}

function dd(args) {
  const child = spawnSync('dd', args, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  if (child.status !== 0) throw new Error(`dd ${args.join(' ')}: ${child.stderr ?? child.error}`);
  return child.stderr;
}
