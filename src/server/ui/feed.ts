/**
 * One look at the engine a second for all viewers together, and none while there are no viewers.
 *
 * A viewer pulls: it gets what has changed since its last event, or everything where it has missed one,
 * so one that is slow costs what its socket holds. The texts are made once for all. The engine is asked
 * again only when it has answered. Used by dashboard.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { EventSource } from '../event-stream.js';
import { AdapterChanges } from './adapter-changes.js';
import type { DashboardEvent, DashboardPoint, DashboardState } from './dashboard-events.js';
import type { EngineSample } from './engine-sample.js';
import { PointMaker } from './point-maker.js';

export interface FeedOptions {
  sample(): Promise<EngineSample>;
  /** What is known without asking the engine; `sample`: the newest, unless it is too old. */
  describe(sample: EngineSample | undefined): Omit<DashboardEvent, FeedFields>;
  quantiles(): Pick<DashboardPoint, 'firstTokenMs' | 'betweenTokensMs'>;
  /** The engine did not answer, or not in time; undefined: it did. */
  asked(error: unknown): void;
  /** Default 1000. */
  intervalMs?: number;
}

type FeedFields = 'at' | 'engine' | 'now' | 'point' | 'history' | 'adapters';
export type FeedHead = { modelName: string; state: DashboardState; reason?: string };

const HISTORY_POINTS = 300;
/** In intervals: an older sample is no news. */
const FRESH_INTERVALS = 3;
/** After a failure: asking again may start an engine. */
const PAUSE_INTERVALS = 5;

interface Viewer {
  /** Of the event it had last; 0 = none yet. */
  seen: number;
  /** It wants one that is newer. */
  after: number;
  open: boolean;
  wake: () => void;
}

export class DashboardFeed {
  readonly #viewers = new Set<Viewer>();
  readonly #intervalMs: number;
  readonly #points = new PointMaker();
  readonly #history: DashboardPoint[] = [];
  readonly #adapters = new AdapterChanges();
  #timer: NodeJS.Timeout | undefined;
  #number = 0;
  #texts: { changes: string; all: () => string } | undefined;
  #sample: EngineSample | undefined;
  #asking: Promise<void> | undefined;
  #askAgainAt = 0;
  #ticking = false;

  constructor(private readonly options: FeedOptions) {
    this.#intervalMs = options.intervalMs ?? 1_000;
  }

  get numViewers(): number {
    return this.#viewers.size;
  }

  /** A viewer's events, until it closes them. */
  open(): EventSource {
    const viewer: Viewer = { seen: 0, after: this.#number, open: true, wake: () => undefined };
    this.#viewers.add(viewer);
    if (this.#timer === undefined) {
      this.#timer = setInterval(() => void this.#tick(), this.#intervalMs);
      this.#timer.unref();
      void this.#tick();
    } else if (this.#number > 0) {
      // There is one of this second.
      viewer.after = this.#number - 1;
    }
    return {
      next: () => this.#next(viewer),
      close: () => this.#close(viewer),
    };
  }

  async #next(viewer: Viewer): Promise<string | undefined> {
    while (viewer.open && this.#number <= viewer.after) {
      await new Promise<void>((resolve) => (viewer.wake = resolve));
    }
    if (!viewer.open || this.#texts === undefined) return undefined;
    const missed = viewer.seen === 0 || viewer.seen !== this.#number - 1;
    viewer.seen = viewer.after = this.#number;
    return missed ? this.#texts.all() : this.#texts.changes;
  }

  #close(viewer: Viewer): void {
    viewer.open = false;
    viewer.wake();
    this.#viewers.delete(viewer);
    if (this.#viewers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #tick(): Promise<void> {
    if (this.#ticking) return;
    this.#ticking = true;
    try {
      if (Date.now() >= this.#askAgainAt) this.#asking ??= this.#ask();
      await Promise.race([this.#asking, sleep(this.#intervalMs * 0.8, undefined, { ref: false })]);
      this.#publish();
    } finally {
      this.#ticking = false;
    }
  }

  async #ask(): Promise<void> {
    try {
      this.#sample = await this.options.sample();
      this.options.asked(undefined);
    } catch (error) {
      this.#askAgainAt = Date.now() + PAUSE_INTERVALS * this.#intervalMs;
      this.#sample = undefined;
      this.options.asked(error);
    } finally {
      this.#asking = undefined;
    }
  }

  #publish(): void {
    const at = Date.now();
    if (this.#sample !== undefined && at - this.#sample.at > FRESH_INTERVALS * this.#intervalMs) {
      this.#sample = undefined;
    }
    const sample = this.#sample;
    const point = this.#points.next(at, sample, this.options.quantiles());
    const older = [...this.#history];
    this.#history.push(point);
    if (this.#history.length > HISTORY_POINTS) this.#history.shift();
    const head = {
      ...{ at, ...this.options.describe(sample), point },
      ...(sample === undefined ? {} : { engine: sample.facts, now: sample.now }),
    };
    const shared = JSON.stringify(head).slice(0, -1);
    const adapters = this.#adapters.next(sample?.adapters);
    const event = (rest: string, rows: string) => `data: ${shared}${rest},"adapters":${rows}}\n\n`;
    let all: string | undefined;
    this.#texts = {
      changes: event('', adapters.changes),
      all: () => (all ??= event(`,"history":${JSON.stringify(older)}`, adapters.all())),
    };
    this.#number++;
    for (const viewer of this.#viewers) viewer.wake();
  }
}
