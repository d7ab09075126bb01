/**
 * `lorax-js build`: builds the native addon where npm's install scripts were blocked or failed. The
 * work is done by scripts/build-native.mjs, which is published beside dist/.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Command } from '../command-line.js';

export const build: Command = {
  name: 'build',
  summary: 'build the native addon from source (CMake, C++20 compiler)',
  options: {},
  run: (_args, terminal) => {
    const script = fileURLToPath(new URL('../scripts/build-native.mjs', import.meta.url));
    const stdio = terminal.json ? 'pipe' : 'inherit';
    const { status, stdout, stderr } = spawnSync(process.execPath, [script], { stdio });
    const output = terminal.json ? `${String(stdout)}${String(stderr)}` : '';
    terminal.result({ built: status === 0, output }, () => []);
    return Promise.resolve(status ?? 1);
  },
};
