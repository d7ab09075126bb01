/** Where scripts/check-smollm2.mjs puts things, and the device it asks for. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { onGpu } from '../e2e/suites/test-device.js';

const cache = fileURLToPath(new URL('../../.cache/', import.meta.url));

export const device = onGpu ? 'cuda' : 'cpu';
export const model = path.join(cache, 'models/SmolLM2-135M-Instruct');
/** Those of a GPU are its own: transformers' bfloat16 on the same card is the bar. */
export const goldens = path.join(cache, 'goldens', onGpu ? 'smollm2-cuda' : 'smollm2');
