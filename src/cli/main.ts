#!/usr/bin/env node
// `npx lorax-js build`: builds the native addon where npm's install scripts were blocked or
// failed. Published as dist/cli.mjs; the work is done by scripts/build-native.mjs, which is
// published beside dist/.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const usage = 'usage: lorax-js build    build the native addon from source (CMake, C++20 compiler)';

function main(args: string[]): number {
  const [command, ...rest] = args;
  if (command === '--help' || command === '-h') {
    console.log(usage);
    return 0;
  }
  if (command !== 'build' || rest.length > 0) {
    console.error(usage);
    return 2;
  }
  const script = fileURLToPath(new URL('../scripts/build-native.mjs', import.meta.url));
  return spawnSync(process.execPath, [script], { stdio: 'inherit' }).status ?? 1;
}

process.exitCode = main(process.argv.slice(2));
