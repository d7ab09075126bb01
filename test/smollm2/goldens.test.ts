/** "Right" on SmolLM2-135M-Instruct: the goldens of test/golden/smollm2, made by its README. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { describeGoldens, readIndex } from '../e2e/suites/goldens.js';

const cache = fileURLToPath(new URL('../../.cache/', import.meta.url));
const index = path.join(cache, 'goldens/smollm2/index.json');
if (!fs.existsSync(index)) {
  throw new Error(`${index} is missing: test/golden/smollm2/README.md says how it is made`);
}

describeGoldens('SmolLM2-135M-Instruct', {
  model: path.join(cache, 'models/SmolLM2-135M-Instruct'),
  cases: readIndex(index),
  // Every adapter of the manifest at once, in float32.
  memoryBytes: 3 * 2 ** 30,
});
