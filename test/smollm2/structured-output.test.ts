/** "Structured" on SmolLM2-135M-Instruct. */
import { describeStructured } from '../e2e/suites/structured-output.js';
import { device, model } from './places.js';

describeStructured('SmolLM2-135M-Instruct', () => ({
  model,
  generations: 2000,
  device: { device },
}));
