/**
 * What the worker remembers of one request between receipt and its terminal event.
 *
 * Times count from receipt. Owned by engine-port.ts, which alone decides when it ends.
 */
import type { AdapterIdentity, Timing, Usage } from '../src/types.js';
import type { AdapterLease } from './adapter-registry.js';
import type { TextOutput } from './output/text-output.js';
import type { ResolvedSampling } from './sampling-defaults.js';

/** Set when native code takes the request. */
export interface Submission {
  nativeId: number;
  adapter: AdapterIdentity | null;
  output: TextOutput;
  sampling: ResolvedSampling;
  atMs: number;
}

export class OpenRequest {
  ended = false;
  promptTokens = 0;
  cachedTokens = 0;
  queueMs: number | null = null;
  timeToFirstTokenMs: number | null = null;
  /** null while it waits for the model, its adapter or its tokens. */
  submission: Submission | null = null;
  /** Until native code's last word. */
  lease: AdapterLease | null = null;
  private readonly receivedAt = performance.now();

  constructor(readonly id: number) {}

  elapsedMs(): number {
    return performance.now() - this.receivedAt;
  }

  usage(): Usage {
    const output = this.submission?.output;
    const usage: Usage = {
      promptTokens: this.promptTokens,
      cachedTokens: this.cachedTokens,
      outputTokens: output?.outputTokens ?? 0,
    };
    if (output?.reasoningTokens !== undefined) usage.reasoningTokens = output.reasoningTokens;
    return usage;
  }

  timing(): Timing {
    const totalMs = this.elapsedMs();
    return {
      // Never admitted: it queued all its life.
      queueMs: this.queueMs ?? totalMs,
      timeToFirstTokenMs: this.timeToFirstTokenMs,
      totalMs,
    };
  }
}
