/**
 * /metrics of one server: its registry, what fills it, and the route.
 *
 * A registry of its own, never prom-client's global one, which belongs to the app. A scrape while the
 * engine is not there gets what is known without it. Made by start-server.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';
import type { AdapterEvent, Engine } from '../../types.js';
import type { ServerApp } from '../environment.js';
import type { EngineObserver } from '../process/observed-engine.js';
import { takeCensus, type Census } from './adapter-census.js';
import { registerLoraxMetrics } from './lorax-metrics.js';
import { RequestMetrics } from './request-metrics.js';
import { registerVllmMetrics, type ReadCensus } from './vllm-metrics.js';

/** A scrape while the model is being loaded. */
const CENSUS_TIMEOUT_MS = 2_000;
/**
 * Routers ask 20 times a second, and each adapter is a line or two: asked again within so many milliseconds for
 * each that there is, a scrape gets the last one's text. With a few, all are new.
 */
const FRESH_MS_PER_ADAPTER = 0.05;
const LOAD_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #requests: RequestMetrics;
  readonly #readers: ReadCensus[];
  readonly #up: Gauge;
  readonly #restarts: Counter;
  readonly #refused: Counter;
  readonly #tenantTokens: Counter;
  readonly #loadSeconds: Histogram;
  readonly #loadFailures: Counter;
  /** Adapters on their way here -> since when. */
  readonly #loading = new Map<string, { at: number; from: 'remote' | 'disk' }>();
  /** The newest, or the one that is being made. */
  #scrape: Promise<string> | undefined;
  /** As performance.now() has it; until then it is given again. */
  #freshUntil = 0;

  constructor(
    private readonly engine: () => Engine,
    modelName: string,
  ) {
    const registers = [this.#registry];
    this.#requests = new RequestMetrics(this.#registry, modelName);
    this.#readers = [
      registerVllmMetrics(this.#registry, modelName),
      registerLoraxMetrics(this.#registry),
    ];
    this.#up = new Gauge({
      ...{ name: 'lorax:engine_up', help: '1 where the engine answers.', registers },
    });
    this.#restarts = new Counter({
      ...{ name: 'lorax:engine_restarts_total', help: 'Engines that were lost.', registers },
    });
    this.#refused = new Counter({
      ...{ name: 'lorax:requests_refused_total', registers },
      help: 'Requests refused at once because as many waited as may.',
    });
    this.#tenantTokens = new Counter({
      ...{ name: 'lorax:tenant_tokens_total', help: 'Prompt and answer, by tenant.', registers },
      labelNames: ['tenant', 'kind'],
    });
    this.#loadSeconds = new Histogram({
      ...{ name: 'lorax:adapter_load_seconds', registers, buckets: LOAD_BUCKETS },
      help: 'From where an adapter was until it lay packed in host memory.',
      labelNames: ['from'],
    });
    this.#loadFailures = new Counter({
      ...{ name: 'lorax:adapter_load_failures_total', help: 'Loads that failed.', registers },
    });
    collectDefaultMetrics({ register: this.#registry });
  }

  readonly observers: readonly EngineObserver[] = [
    (request) => this.#requests.observer(request),
    ({ tenant }) => ({
      end: ({ usage }) => {
        if (tenant === undefined) return;
        this.#tenantTokens.inc({ tenant, kind: 'prompt' }, usage.promptTokens);
        this.#tenantTokens.inc({ tenant, kind: 'output' }, usage.outputTokens);
      },
    }),
  ];

  /** EngineOptions.onAdapter */
  readonly onAdapter = ({ name, tenant, state }: AdapterEvent): void => {
    const key = `${tenant ?? ''}\0${name}`;
    const began = this.#loading.get(key);
    if (state === 'fetching') this.#loading.set(key, { at: performance.now(), from: 'remote' });
    if (state === 'on-disk' && began === undefined) {
      this.#loading.set(key, { at: performance.now(), from: 'disk' });
    }
    if (state === 'failed') this.#loadFailures.inc();
    if (state === 'host' && began !== undefined) {
      const seconds = (performance.now() - began.at) / 1000;
      this.#loadSeconds.observe({ from: began.from }, seconds);
    }
    if (state !== 'fetching' && state !== 'on-disk') this.#loading.delete(key);
  };

  engineLost(): void {
    this.#restarts.inc();
  }

  refused(): void {
    this.#refused.inc();
  }

  register(app: ServerApp): void {
    app.get('/metrics', async (c) => {
      const text = await this.text();
      return c.body(text, 200, { 'content-type': this.#registry.contentType });
    });
  }

  text(): Promise<string> {
    if (this.#scrape === undefined || performance.now() > this.#freshUntil) {
      this.#freshUntil = Infinity;
      this.#scrape = this.scrape();
    }
    return this.#scrape;
  }

  private async scrape(): Promise<string> {
    let fresh = 0;
    try {
      const census = await this.census();
      this.#up.set(census === undefined ? 0 : 1);
      if (census !== undefined) {
        for (const read of this.#readers) read(census);
        fresh = census.adapters.length * FRESH_MS_PER_ADAPTER;
      }
      return await this.#registry.metrics();
    } finally {
      this.#freshUntil = performance.now() + fresh;
    }
  }

  private async census(): Promise<Census | undefined> {
    const { tenants, waiting } = this.#requests;
    try {
      return await Promise.race([
        takeCensus(this.engine(), tenants, waiting),
        sleep(CENSUS_TIMEOUT_MS, undefined, { ref: false }),
      ]);
    } catch {
      return undefined;
    }
  }
}
