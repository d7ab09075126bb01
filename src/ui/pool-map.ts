/** The page pool as a map: cells, and a legend that counts. */
import type { DashboardEvent } from '../server/ui/dashboard-events.js';
import { byId, element, setData, setText, setTitle } from './dom.js';
import { bytes, count, percent } from './format.js';
import { KIND_NAMES, PAGE_KINDS, poolCells, type Cell, type PageKind } from './pool-cells.js';
import type { Store } from './store.js';

const MAX_CELLS = 1000;

export class PoolMap {
  readonly #map = byId('pool-map');
  readonly #rows = new Map<
    PageKind,
    { pages: HTMLElement; share: HTMLElement; size: HTMLElement }
  >();

  constructor() {
    const body = byId('pool-legend').querySelector('tbody') as HTMLElement;
    for (const kind of PAGE_KINDS) {
      const row = {
        ...{ pages: element('td', { class: 'number' }), share: element('td', { class: 'number' }) },
        size: element('td', { class: 'number muted' }),
      };
      const name = element('th', { scope: 'row' });
      name.append(element('i', { class: 'swatch', 'data-kind': kind }), KIND_NAMES[kind]);
      body.append(element('tr', { 'data-kind': kind }, name, row.pages, row.share, row.size));
      this.#rows.set(kind, row);
    }
    const readout = byId('pool-cell');
    this.#map.addEventListener('pointerover', ({ target }) => {
      setText(readout, target === this.#map ? '' : (target as HTMLElement).title);
    });
    this.#map.addEventListener('pointerleave', () => setText(readout, ''));
  }

  draw(store: Store, { now, engine }: DashboardEvent): void {
    this.#map.classList.toggle('stale', now === undefined);
    if (now === undefined || engine === undefined) return;
    const { pages } = now;
    const { cells, counts, pagesPerCell } = poolCells(pages, store.adapters, MAX_CELLS);
    while (this.#map.childElementCount > cells.length) this.#map.lastElementChild?.remove();
    while (this.#map.childElementCount < cells.length) this.#map.append(element('i'));
    cells.forEach((cell, i) => {
      const shown = this.#map.children[i] as HTMLElement;
      setData(shown, 'kind', cell.kind);
      setData(shown, 'shade', String(cell.shade));
      setData(shown, 'pages', String(cell.pages));
      setTitle(shown, describe(cell));
    });
    setText(
      byId('pool-size'),
      `${count(pages.total)} pages of ${bytes(engine.pageBytes)}, ` +
        `${bytes(pages.total * engine.pageBytes)}; a cell is ` +
        (pagesPerCell === 1 ? 'a page' : `${count(pagesPerCell)} pages`),
    );
    const parts = PAGE_KINDS.map((kind) => `${KIND_NAMES[kind]} ${count(counts[kind])}`);
    this.#map.setAttribute('aria-label', `Pages by kind: ${parts.join(', ')}`);
    for (const [kind, row] of this.#rows) {
      setText(row.pages, count(counts[kind]));
      setText(row.share, percent(counts[kind], pages.total));
      setText(row.size, bytes(counts[kind] * engine.pageBytes));
    }
  }
}

function describe({ kind, pages, owners }: Cell): string {
  const whose = owners.map((owner) => `${owner.name} ${count(owner.pages)}`).join(', ');
  const what = `${count(pages)} ${pages === 1 ? 'page' : 'pages'}, ${KIND_NAMES[kind]}`;
  return whose === '' ? what : `${what}: ${whose}`;
}
