/** "Right" on SmolLM2-135M-Instruct: the goldens of test/golden/smollm2, made by its README. */
import fs from 'node:fs';
import path from 'node:path';

import { describeGoldens, readIndex } from '../e2e/suites/goldens.js';
import { device, goldens, model } from './places.js';

const index = path.join(goldens, 'index.json');
if (!fs.existsSync(index)) {
  throw new Error(`${index} is missing: test/golden/smollm2/README.md says how it is made`);
}

describeGoldens('SmolLM2-135M-Instruct', {
  model,
  cases: readIndex(index),
  device,
  // Every adapter of the manifest at once, in float32.
  memoryBytes: 3 * 2 ** 30,
  onOutcomes: (outcomes) =>
    fs.writeFileSync(path.join(goldens, 'outcomes.json'), JSON.stringify(outcomes)),
});
