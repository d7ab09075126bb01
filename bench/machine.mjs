// What the figures were measured on, and the ceiling they are compared with.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** One line: processor, cores, memory, instruction sets that matter here. */
export function describeMachine() {
  const cpus = os.cpus();
  let flags = '';
  try {
    flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  } catch {
    // Not Linux: the model name has to do.
  }
  const sets = ['avx2', 'avx512f', 'avx512_bf16', 'amx_bf16'].filter((name) =>
    flags.split(' ').includes(name),
  );
  const memory = Math.round(os.totalmem() / 2 ** 30);
  return `${cpus[0]?.model ?? os.arch()}, ${describeCores(cpus.length)}, ${memory} GiB, ${sets.join(' ')}, Node ${process.versions.node}`;
}

/** Those this process may use (taskset, containers); two threads of one core are less than two cores. */
function describeCores(all) {
  const usable = os.availableParallelism();
  const text = usable < all ? `${usable} of ${all} cores` : `${all} cores`;
  try {
    const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(
      readFileSync('/proc/self/status', 'utf8'),
    )?.[1];
    const allowed = list.split(',').flatMap((range) => {
      const [first, last = first] = range.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
    const siblings = allowed.map((cpu) =>
      readFileSync(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`, 'utf8'),
    );
    const physical = new Set(siblings).size;
    return physical < usable ? `${text} (threads of ${physical})` : text;
  } catch {
    return text;
  }
}

/** Of a checkout, or of what scripts/pack-gpu.mjs packed. */
export function commitOf(directory) {
  try {
    const stdio = ['ignore', 'pipe', 'ignore'];
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: directory, stdio })
      .toString()
      .trim();
  } catch {
    const packed = path.join(directory, '.gpu/commit');
    return existsSync(packed) ? readFileSync(packed, 'utf8').trim() : 'unknown';
  }
}
