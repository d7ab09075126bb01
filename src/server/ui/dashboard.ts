/**
 * The dashboard of one server: its page at /ui, and what the page shows, for those who may read metrics.
 *
 * Made by start-server.ts, which tells it of the engine's fortunes; who may read is access.ts's to say.
 */
import { LoraxError } from '../../errors.js';
import type { Engine } from '../../types.js';
import type { ServerApp } from '../environment.js';
import { eventStream } from '../event-stream.js';
import type { Lifecycle } from '../process/lifecycle.js';
import type { EngineObserver } from '../process/observed-engine.js';
import type { DashboardState } from './dashboard-events.js';
import { sampleEngine, type EngineSample } from './engine-sample.js';
import { DashboardFeed } from './feed.js';
import { PAGE_HEADERS, registerPageFiles, type PageFiles } from './page-files.js';
import { UI_DATA } from './paths.js';
import { RequestWatch, WINDOW_SECONDS } from './request-watch.js';

export interface DashboardOptions {
  modelName: string;
  intervalMs?: number;
  files?: PageFiles;
}

const LOST: ReadonlySet<string> = new Set(['WORKER_DIED', 'ENGINE_LOST']);

export class Dashboard {
  readonly #watch = new RequestWatch();
  readonly #startedAt = Date.now();
  readonly #feed: DashboardFeed;
  #engineIs: 'loading' | 'ready' | 'lost' | 'failed' = 'loading';
  #reason: string | undefined;
  #losses = 0;
  #lifecycle: Pick<Lifecycle, 'isDraining'> | undefined;

  constructor(
    engine: () => Engine,
    private readonly options: DashboardOptions,
  ) {
    const { intervalMs } = options;
    this.#feed = new DashboardFeed({
      sample: () => sampleEngine(engine(), this.#watch),
      describe: (sample) => ({
        ...{ modelName: options.modelName, ...this.#state(sample) },
        ...{ uptimeMs: Date.now() - this.#startedAt, losses: this.#losses },
        windowSeconds: WINDOW_SECONDS,
      }),
      quantiles: () => ({
        firstTokenMs: this.#watch.firstToken.read(),
        betweenTokensMs: this.#watch.betweenTokens.read(),
      }),
      asked: (error) => {
        if (error === undefined) this.engineIsBack();
        else if (LoraxError.isInstance(error) && LOST.has(error.code)) this.engineIsLost(error);
        else this.engineIsGone(error);
      },
      ...(intervalMs === undefined ? {} : { intervalMs }),
    });
  }

  readonly observer: EngineObserver = (request) => this.#watch.observer(request);

  engineIsLost({ message }: LoraxError): void {
    if (this.#engineIs !== 'lost') this.#losses++;
    [this.#engineIs, this.#reason] = ['lost', message];
  }

  engineIsBack(): void {
    [this.#engineIs, this.#reason] = ['ready', undefined];
  }

  /** It cannot be loaded, or does not come back. */
  engineIsGone(error: unknown): void {
    const message = LoraxError.isInstance(error) ? error.message : 'The engine failed.';
    [this.#engineIs, this.#reason] = ['failed', message];
  }

  register(app: ServerApp, lifecycle: Pick<Lifecycle, 'isDraining'>): void {
    this.#lifecycle = lifecycle;
    registerPageFiles(app, this.options.files);
    app.get(UI_DATA, (c) => {
      const response = eventStream(c, this.#feed.open());
      for (const [name, value] of Object.entries(PAGE_HEADERS)) response.headers.set(name, value);
      response.headers.set('cache-control', 'no-store');
      return response;
    });
  }

  #state(sample: EngineSample | undefined): { state: DashboardState; reason?: string } {
    if (this.#lifecycle?.isDraining === true) return { state: 'draining' };
    const state =
      this.#engineIs === 'ready' && sample === undefined ? ('silent' as const) : this.#engineIs;
    return { state, ...(this.#reason === undefined ? {} : { reason: this.#reason }) };
  }
}
