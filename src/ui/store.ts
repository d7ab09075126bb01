/** What the page knows: the newest event, five minutes of points, and every adapter. */
import type { AdapterRow, DashboardEvent, DashboardPoint } from '../server/ui/dashboard-events.js';

/** Of the charts. */
export const SPAN_SECONDS = 300;

export class Store {
  event: DashboardEvent | undefined;
  points: DashboardPoint[] = [];
  readonly #adapters = new Map<string, AdapterRow>();

  get adapters(): AdapterRow[] {
    return [...this.#adapters.values()];
  }

  take(event: DashboardEvent): void {
    const { adapters, point, history } = event;
    if (history !== undefined) this.points = joined(this.points, history);
    this.points.push(point);
    const oldest = point.at - SPAN_SECONDS * 1000;
    while ((this.points[0] as DashboardPoint).at < oldest) this.points.shift();
    if (adapters.all) this.#adapters.clear();
    for (const gone of adapters.gone) this.#adapters.delete(keyOf(gone));
    for (const row of adapters.rows) this.#adapters.set(keyOf(row), row);
    this.event = event;
  }
}

/** Own points are of other moments where the server had nobody who watched. */
function joined(own: DashboardPoint[], history: DashboardPoint[]): DashboardPoint[] {
  const byTime = new Map([...own, ...history].map((point) => [point.at, point]));
  return [...byTime.values()].sort((a, b) => a.at - b.at);
}

export const keyOf = ({ tenant = '', name }: { name: string; tenant?: string }): string =>
  `${tenant}\0${name}`;
