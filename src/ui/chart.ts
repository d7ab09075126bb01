/**
 * One chart: uPlot in the page's colours, and a legend of our own that says the newest values, or those
 * below the pointer.
 */
import uPlot from 'uplot';
import { element, setData, setText } from './dom.js';

export interface SeriesSpec {
  label: string;
  /** A custom property of the page's styles. */
  color: `--${string}`;
}

export interface ChartSpec {
  title: string;
  series: readonly SeriesSpec[];
  format(value: number): string;
  /** Filled, each on top of those before it. */
  stacked?: boolean;
  /** Where the y axis ends; unset: a little above the highest value. */
  top?(): number | undefined;
}

export interface XAxis {
  min: number;
  splits: readonly number[];
  label(x: number): string;
  /** Steps, which are of their own, are drawn as such; moments are joined. */
  discrete: boolean;
}

type Column = readonly (number | null)[];

const darkMode = window.matchMedia('(prefers-color-scheme: dark)');

export class Chart {
  readonly #values: HTMLElement[];
  readonly #plot = element('div', { class: 'plot' });
  #uplot: uPlot | undefined;
  #axis: XAxis | undefined;
  #x: readonly number[] = [];
  #columns: readonly Column[] = [];

  constructor(
    private readonly host: HTMLElement,
    private readonly spec: ChartSpec,
  ) {
    this.#values = spec.series.map(() => element('b'));
    const legend = spec.series.map(({ label, color }, i) => {
      const swatch = element('i', { class: 'swatch' });
      swatch.style.background = `var(${color})`;
      return element('li', {}, swatch, `${label} `, this.#values[i] as HTMLElement);
    });
    host.append(element('h3', {}, spec.title), element('ul', {}, ...legend), this.#plot);
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    darkMode.addEventListener('change', () => this.#rebuild());
  }

  draw(axis: XAxis, x: readonly number[], columns: readonly Column[]): void {
    [this.#x, this.#columns] = [x, columns];
    const isNew = axis !== this.#axis;
    this.#axis = axis;
    if (this.#uplot === undefined || isNew) this.#rebuild();
    else this.#uplot.setData(this.#data());
    const drawn = x.filter((_, i) => columns.some((column) => column[i] != null));
    setData(this.host, 'points', String(drawn.length));
    this.#say(this.#uplot?.cursor.idx ?? undefined);
  }

  #data(): uPlot.AlignedData {
    if (this.spec.stacked !== true) {
      return [this.#x as number[], ...(this.#columns as (number | null)[][])];
    }
    const sums: (number | null)[][] = [];
    for (const column of this.#columns) {
      const below = sums.at(-1);
      sums.push(column.map((value, i) => (value === null ? null : value + (below?.[i] ?? 0))));
    }
    // The tallest first: the others are drawn over it.
    return [this.#x as number[], ...sums.reverse()];
  }

  /** Colours and shapes are uPlot's to know when it is made. */
  #rebuild(): void {
    const { clientWidth: width, clientHeight: height } = this.#plot;
    const axis = this.#axis;
    if (axis === undefined || width === 0) return;
    this.#uplot?.destroy();
    const style = getComputedStyle(this.host);
    const color = (name: string) => style.getPropertyValue(name).trim();
    const { stacked = false, format } = this.spec;
    const series = this.spec.series.map((each): uPlot.Series => ({
      ...{ stroke: color(each.color), width: stacked ? 0 : 1.5, points: { show: false } },
      ...(stacked ? { fill: color(each.color) } : {}),
      ...(axis.discrete && uPlot.paths.stepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
    }));
    if (stacked) series.reverse();
    const line = { stroke: color('--line'), width: 1 };
    const labels = {
      stroke: color('--muted'),
      font: `11px ${style.fontFamily}`,
      ticks: { show: false },
    };
    this.#uplot = new uPlot(
      {
        ...{ width, height, legend: { show: false }, series: [{}, ...series] },
        padding: [6, 14, 0, 0],
        scales: {
          x: { time: false, range: [axis.min, 0] },
          y: { range: (_, __, max) => [0, this.spec.top?.() ?? (max > 0 ? max * 1.08 : 1)] },
        },
        axes: [
          {
            ...{ ...labels, grid: { show: false }, border: { ...line, show: true } },
            ...{
              size: 20,
              gap: 4,
              splits: [...axis.splits],
              values: [...axis.splits].map(axis.label),
            },
          },
          {
            ...{ ...labels, grid: line, size: 54, gap: 6, space: 28 },
            values: (_, splits) => splits.map((split) => format(split)),
          },
        ],
        cursor: {
          ...{ y: false, points: { show: false }, drag: { x: false, y: false } },
          ...(axis.discrete ? {} : { sync: { key: 'time' } }),
        },
        hooks: { setCursor: [({ cursor }) => this.#say(cursor.idx ?? undefined)] },
      },
      this.#data(),
      this.#plot,
    );
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.#plot;
    if (this.#uplot === undefined) this.#rebuild();
    else if (width > 0) this.#uplot.setSize({ width, height });
  }

  /** `at`: below the pointer; else the newest. */
  #say(at: number | undefined): void {
    this.#columns.forEach((column, i) => {
      const value = at === undefined ? column.findLast((each) => each !== null) : column[at];
      setText(
        this.#values[i] as HTMLElement,
        value === null || value === undefined ? '–' : this.spec.format(value),
      );
    });
  }
}
