/**
 * The device that end-to-end tests run on: the CPU, or, where scripts/test-gpu sets
 * LORAX_TEST_DEVICE, the GPU. Named, so that a machine's GPU is never taken by chance.
 */
import type { EngineOptions } from 'lorax-js/engine';

export const onGpu = process.env.LORAX_TEST_DEVICE === 'cuda';

/** For any engine. Several test files run at a time: none takes most of the GPU's memory. */
export const testDevice: Pick<EngineOptions, 'device' | 'memoryBytes'> = onGpu
  ? { device: 'cuda', memoryBytes: 256 << 20 }
  : { device: 'cpu' };

/** For tests that compare a request's tokens with those it has alone. */
export const exactDevice: Partial<EngineOptions> = onGpu
  ? { ...testDevice, deterministic: true }
  : testDevice;
