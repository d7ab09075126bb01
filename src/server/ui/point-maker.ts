/**
 * From one sample of the engine to the next: what happened in between, as a point for charts.
 */
import type { DashboardPoint, StepRow } from './dashboard-events.js';
import type { EngineSample } from './engine-sample.js';

export class PointMaker {
  #before: EngineSample | undefined;

  next(
    at: number,
    sample: EngineSample | undefined,
    quantiles: Pick<DashboardPoint, 'firstTokenMs' | 'betweenTokensMs'>,
  ): DashboardPoint {
    const before = this.#before;
    this.#before = sample;
    const between = sample === undefined || before === undefined ? null : changes(before, sample);
    return {
      ...{ at, ...quantiles, pages: sample?.now.pages ?? null },
      promptPerSecond: between?.promptPerSecond ?? null,
      outputPerSecond: between?.outputPerSecond ?? null,
      step: between?.step ?? null,
    };
  }
}

/** null: it is the same sample, or an engine that counts anew. */
function changes(before: EngineSample, after: EngineSample) {
  const seconds = (after.at - before.at) / 1000;
  const of = (key: string) =>
    (after.now.totals[key] as number) - (before.now.totals[key] as number);
  const numSteps = of('steps');
  if (seconds <= 0 || numSteps < 0) return null;
  return {
    promptPerSecond: round(of('promptTokens') / seconds),
    outputPerSecond: round(of('outputTokens') / seconds),
    step: numSteps === 0 ? null : meanOf(after.now.steps.slice(-numSteps)),
  };
}

function meanOf(steps: readonly StepRow[]): DashboardPoint['step'] {
  const mean = (column: 0 | 1 | 2 | 3) =>
    round(steps.reduce((sum, step) => sum + step[column], 0) / Math.max(1, steps.length));
  return { prefill: mean(0), decode: mean(1), adapters: mean(2), ms: mean(3) };
}

/** Five minutes of them are sent to every new viewer. */
const round = (value: number) => Math.round(value * 100) / 100;
