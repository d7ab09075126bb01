/**
 * What is measured of each request as it goes by: vLLM's histograms and counters of requests.
 *
 * An observer of the engine (process/observed-engine.ts), so it sees every route alike. Names and
 * meanings are vLLM's, so that dashboards and autoscalers made for it read them.
 */
import { Counter, Histogram, type Registry } from 'prom-client';
import type { EngineObserver } from '../process/observed-engine.js';

const LABELS = ['model_name', 'engine'] as const;

const FIRST_TOKEN_BUCKETS = [
  ...[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75],
  ...[1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560],
];
const TOKEN_BUCKETS = [
  ...[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5],
  ...[0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80],
];
const REQUEST_BUCKETS = [
  ...[0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60],
  ...[120, 240, 480, 960, 1920, 7680],
];
const LENGTH_BUCKETS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];

export class RequestMetrics {
  /** Adapters that requests have asked for and that has not started -> how many. */
  readonly #waiting = new Map<string, number>();
  readonly #tenants = new Set<string>();
  readonly #labels: { model_name: string; engine: string };
  readonly #seconds: Record<'first' | 'token' | 'queue' | 'total', Histogram>;
  readonly #lengths: Record<'prompt' | 'output', Histogram>;
  readonly #ended: Counter;

  constructor(registry: Registry, modelName: string) {
    this.#labels = { model_name: modelName, engine: '0' };
    const registers = [registry];
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name, help, buckets, labelNames: LABELS, registers });
    this.#seconds = {
      first: histogram(
        'vllm:time_to_first_token_seconds',
        'From submission to the first token.',
        FIRST_TOKEN_BUCKETS,
      ),
      token: histogram(
        'vllm:inter_token_latency_seconds',
        'From one token of a request to its next.',
        TOKEN_BUCKETS,
      ),
      queue: histogram(
        'vllm:request_queue_time_seconds',
        'From submission to admission.',
        REQUEST_BUCKETS,
      ),
      total: histogram(
        'vllm:e2e_request_latency_seconds',
        'From submission to the last token.',
        REQUEST_BUCKETS,
      ),
    };
    this.#lengths = {
      prompt: histogram('vllm:request_prompt_tokens', 'Tokens of a prompt.', LENGTH_BUCKETS),
      output: histogram('vllm:request_generation_tokens', 'Tokens of an answer.', LENGTH_BUCKETS),
    };
    this.#ended = new Counter({
      ...{ name: 'vllm:request_success_total', help: 'Requests that ended, by how.', registers },
      labelNames: [...LABELS, 'finished_reason'],
    });
  }

  /** Names that requests wait for. */
  get waiting(): ReadonlySet<string> {
    return new Set(this.#waiting.keys());
  }

  /** Those that have asked for something. */
  get tenants(): ReadonlySet<string> {
    return this.#tenants;
  }

  readonly observer: EngineObserver = ({ kind, adapters, tenant }) => {
    if (tenant !== undefined) this.#tenants.add(tenant);
    for (const name of adapters) this.#count(name, 1);
    let started = false;
    let tokens = 0;
    const between = { count: 0, ms: 0 };
    const observeBetween = (count: number, ms: number) => {
      for (let i = 0; i < count; i++) this.#seconds.token.observe(labels, ms / count / 1000);
      between.count += count;
      between.ms += ms;
    };
    const begun = () => {
      if (started) return;
      started = true;
      for (const name of adapters) this.#count(name, -1);
    };
    const labels = this.#labels;
    return {
      start: begun,
      tokens: (count, sinceMs) => {
        // The first ones are the time to the first token.
        if (tokens > 0) observeBetween(count, sinceMs);
        tokens += count;
      },
      end: ({ outcome, reason, usage, timing }) => {
        begun();
        const finished = reason ?? (outcome === 'finished' ? 'stop' : outcome);
        this.#ended.inc({ ...labels, finished_reason: FINISHED[finished] ?? finished });
        if (kind === 'embed') return;
        const { queueMs, timeToFirstTokenMs, totalMs } = timing;
        if (timeToFirstTokenMs !== null) {
          this.#seconds.first.observe(labels, timeToFirstTokenMs / 1000);
          this.#seconds.queue.observe(labels, queueMs / 1000);
        }
        if (outcome !== 'finished') return;
        // Those that came with the first one share what is left of the time.
        const unseen = usage.outputTokens - 1 - between.count;
        const leftMs = totalMs - (timeToFirstTokenMs ?? totalMs) - between.ms;
        if (unseen > 0) observeBetween(unseen, Math.max(0, leftMs));
        this.#seconds.total.observe(labels, totalMs / 1000);
        this.#lengths.prompt.observe(labels, usage.promptTokens);
        this.#lengths.output.observe(labels, usage.outputTokens);
      },
    };
  };

  #count(name: string, by: 1 | -1): void {
    const left = (this.#waiting.get(name) ?? 0) + by;
    if (left > 0) this.#waiting.set(name, left);
    else this.#waiting.delete(name);
  }
}

/** As vLLM spells them. */
const FINISHED: Readonly<Record<string, string>> = {
  ...{ 'tool-calls': 'stop', aborted: 'abort', failed: 'error' },
};
