import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { sha256OfFile } from '../../../worker/files/hash-thread.js';

const directory = mkdtempSync(path.join(tmpdir(), 'lorax-hash-'));

it('hashes a prefix and a file, many at once', async () => {
  const sizes = [0, 1, 1000, 1 << 20, (3 << 20) + 7];
  const hashes = await Promise.all(
    sizes.map(async (size, i) => {
      const bytes = randomBytes(size);
      const file = path.join(directory, `${i}`);
      writeFileSync(file, bytes);
      const expected = createHash('sha256').update(`ü${i}\n`).update(bytes).digest('hex');
      return [await sha256OfFile(`ü${i}\n`, file), expected];
    }),
  );
  for (const [hash, expected] of hashes) expect(hash).toBe(expected);
});

it('fails as reading does, and goes on', async () => {
  const missing = path.join(directory, 'missing');
  await expect(sha256OfFile('', missing)).rejects.toMatchObject({ code: 'ENOENT' });
  await expect(sha256OfFile('', directory)).rejects.toMatchObject({ code: 'EISDIR' });
  writeFileSync(missing, 'here');
  expect(await sha256OfFile('', missing)).toBe(createHash('sha256').update('here').digest('hex'));
});
