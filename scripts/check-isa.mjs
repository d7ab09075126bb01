// Guards the run-time choice of instruction sets. An inline function or template that is compiled
// in a *_avx512.cc file and kept out of line is a weak symbol; if another file has it too, the
// linker may keep the AVX-512 copy for everyone, and a machine without AVX-512 dies in, say,
// std::vector. So no weak symbol of such an object may also be defined by an object of another
// kind. Needs binutils' nm and a native build in build/. Called by .ci/run.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const objectsRoot = path.join(root, 'build', 'CMakeFiles');

const objects = fs
  .readdirSync(objectsRoot, { recursive: true })
  .map(String)
  .filter((name) => /^(core|backend_cpu|addon)\.dir.*\.o$/.test(name));
const kindOf = (object) => /_(avx2|avx512|amx)\.cc\.o$/.exec(object)?.[1] ?? 'any';

/** Symbol -> the kinds of objects that define it weakly. */
const kinds = new Map();
for (const object of objects) {
  const file = path.join(objectsRoot, object);
  const nm = spawnSync('nm', ['--defined-only', '--demangle', file], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (nm.status !== 0) throw new Error(`nm ${file} failed: ${nm.stderr ?? nm.error}`);
  for (const line of nm.stdout.split('\n')) {
    // W: weak function. V and u are weak data, which has no instructions.
    const symbol = /^[0-9a-f]+ W (.+)$/.exec(line)?.[1];
    if (symbol === undefined) continue;
    if (!kinds.has(symbol)) kinds.set(symbol, new Map());
    kinds.get(symbol).set(kindOf(object), object);
  }
}
const shared = [...kinds].filter(([, each]) => each.size > 1);
for (const [symbol, each] of shared) {
  process.stderr.write(`check-isa: ${symbol}\n`);
  for (const object of each.values()) process.stderr.write(`  in ${object}\n`);
}
const special = objects.filter((object) => kindOf(object) !== 'any').length;
process.stdout.write(
  `check-isa: ${objects.length} objects, ${special} for one instruction set, ` +
    `${shared.length} weak functions shared between kinds\n`,
);
if (objects.length === 0 || shared.length > 0) process.exitCode = 1;
