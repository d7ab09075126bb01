// S-LoRA's synthetic trace (Sheng et al. 2023, benchmarks/trace.py): which adapter each request is on,
// how long its prompt and its answer are, and when it comes.
//
// One RandomState draws all adapters, then all prompt lengths, all output lengths, all gaps; so traces that
// differ in the number of adapters alone have the same lengths and times. Used by bench/trace.mjs; the
// native bench of the virtual clock reads what formatTrace() writes.
import { NumpyRandomState } from './numpy-random.mjs';

/**
 * `alpha`: the more below 1, the more requests are on few adapters; 1 is uniform. `cv`: the coefficient
 * of variation of the gaps; 1 is a Poisson process. `input`, `output`: [least, most + 1] tokens.
 * `duration` seconds at `rate` requests/s.
 */
export function makeTrace({ adapters, alpha, rate, cv, duration, input, output, seed = 42 }) {
  const random = new NumpyRandomState(seed);
  const count = Math.trunc(rate * duration);
  const draw = (one) => Array.from({ length: count }, one);
  const ids = draw(() => Math.trunc(random.power(alpha) * adapters));
  const inputs = draw(() => random.integer(...input));
  const outputs = draw(() => random.integer(...output));
  const shape = 1 / (cv * cv);
  const scale = (cv * cv) / rate;
  let seconds = 0;
  return ids.map((adapter, i) => {
    seconds += random.gamma(shape, scale);
    return { adapter, inputTokens: inputs[i], outputTokens: outputs[i], atSeconds: seconds };
  });
}

/** A request a line. */
export function formatTrace(trace) {
  const lines = trace.map(({ atSeconds, adapter, inputTokens, outputTokens }) =>
    [atSeconds.toFixed(9), adapter, inputTokens, outputTokens].join(' '),
  );
  return `${lines.join('\n')}\n`;
}
