/** Which charts there are, and what of the store each draws. */
import type { DashboardEvent, DashboardPoint, StepRow } from '../server/ui/dashboard-events.js';
import { Chart, type XAxis } from './chart.js';
import { byId, setText } from './dom.js';
import { count, milliseconds, short } from './format.js';
import { SPAN_SECONDS, type Store } from './store.js';

/** As long as there is something to show: a minute, two, or five. */
const TIMES: readonly XAxis[] = [
  [60, [-45, -30, -15, 0]],
  [120, [-90, -60, -30, 0]],
  [SPAN_SECONDS, [-240, -120, 0]],
].map(([seconds, splits]) => ({
  ...{ min: -(seconds as number), splits: splits as number[], discrete: false },
  label: (x: number) => (x === 0 ? 'now' : x % 60 === 0 ? `−${-x / 60} min` : `−${-x} s`),
}));
const STEPS: XAxis = {
  min: -256,
  splits: [-200, -100, 0],
  label: (x) => (x === 0 ? 'now' : `−${-x}`),
  discrete: true,
};

const P50_P99 = [
  { label: 'p50', color: '--series-1' },
  { label: 'p99', color: '--series-2' },
] as const;

export class Charts {
  readonly #tokens = new Chart(byId('chart-tokens'), {
    ...{ title: 'Tokens/s', format: short },
    series: [
      { label: 'output', color: '--series-1' },
      { label: 'prompt', color: '--series-3' },
    ],
  });
  readonly #first = new Chart(byId('chart-first'), {
    ...{ title: 'Time to first token', series: P50_P99, format: milliseconds },
  });
  readonly #between = new Chart(byId('chart-between'), {
    ...{ title: 'Time between tokens', series: P50_P99, format: milliseconds },
  });
  readonly #pool = new Chart(byId('chart-pool'), {
    ...{ title: 'Pages held', format: short, stacked: true },
    top: () => this.store.event?.now?.pages.total,
    series: [
      { label: 'KV', color: '--kv' },
      { label: 'prefixes', color: '--cold' },
      { label: 'adapters', color: '--used' },
      { label: 'retiring', color: '--retiring' },
    ],
  });
  readonly #rows = new Chart(byId('chart-rows'), {
    ...{ title: 'Rows a step', format: short, stacked: true },
    series: [
      { label: 'decode', color: '--series-1' },
      { label: 'prefill', color: '--series-3' },
    ],
  });
  readonly #adapters = new Chart(byId('chart-adapters'), {
    ...{ title: 'Adapters a step', format: short },
    series: [{ label: 'distinct', color: '--used' }],
  });
  readonly #step = new Chart(byId('chart-step'), {
    ...{ title: 'Time of a step', format: milliseconds },
    series: [{ label: 'step', color: '--series-4' }],
  });
  #view: 'time' | 'steps' = 'time';
  #steps: readonly StepRow[] = [];

  constructor(private readonly store: Store) {
    const buttons = document.querySelectorAll<HTMLButtonElement>('[data-view]');
    for (const button of buttons) {
      button.addEventListener('click', () => {
        this.#view = button.dataset.view === 'steps' ? 'steps' : 'time';
        for (const each of buttons) each.setAttribute('aria-pressed', String(each === button));
        this.#drawBatch();
      });
    }
  }

  draw({ now, windowSeconds }: DashboardEvent): void {
    const { points } = this.store;
    const { x, axis } = this.#times();
    const of = (read: (point: DashboardPoint) => number | null | undefined) =>
      points.map((point) => read(point) ?? null);
    this.#tokens.draw(axis, x, [of((p) => p.outputPerSecond), of((p) => p.promptPerSecond)]);
    this.#first.draw(axis, x, [of((p) => p.firstTokenMs?.p50), of((p) => p.firstTokenMs?.p99)]);
    this.#between.draw(axis, x, [
      of((p) => p.betweenTokensMs?.p50),
      of((p) => p.betweenTokensMs?.p99),
    ]);
    this.#pool.draw(axis, x, [
      ...[of((p) => p.pages?.kv), of((p) => p.pages?.cold)],
      ...[of((p) => p.pages?.adapter), of((p) => p.pages?.retiring)],
    ]);
    setText(byId('speed-window'), `quantiles of the last ${windowSeconds} s`);
    if (now !== undefined) {
      this.#steps = now.steps;
      setText(byId('batch-steps'), `${count(now.totals.steps ?? 0)} steps`);
    }
    this.#drawBatch();
  }

  #times(): { x: number[]; axis: XAxis } {
    const { points } = this.store;
    const newest = points.at(-1)?.at ?? 0;
    const x = points.map(({ at }) => (at - newest) / 1000);
    const axis = TIMES.find(({ min }) => (x[0] ?? 0) >= min) ?? (TIMES.at(-1) as XAxis);
    return { x, axis };
  }

  #drawBatch(): void {
    const isTime = this.#view === 'time';
    const { x, axis } = isTime
      ? this.#times()
      : { x: this.#steps.map((_, i) => i - this.#steps.length), axis: STEPS };
    const { points } = this.store;
    const column = (key: 'prefill' | 'decode' | 'adapters' | 'ms', i: 0 | 1 | 2 | 3) =>
      isTime ? points.map(({ step }) => step?.[key] ?? null) : this.#steps.map((step) => step[i]);
    this.#rows.draw(axis, x, [column('decode', 1), column('prefill', 0)]);
    this.#adapters.draw(axis, x, [column('adapters', 2)]);
    this.#step.draw(axis, x, [column('ms', 3)]);
  }
}
