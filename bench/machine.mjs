// What the figures were measured on, and the ceiling they are compared with.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';

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
  return `${cpus[0]?.model ?? os.arch()}, ${cpus.length} cores, ${memory} GiB, ${sets.join(' ')}, Node ${process.versions.node}`;
}

export function commitOf(directory) {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: directory })
      .toString()
      .trim();
  } catch {
    return 'unknown';
  }
}
