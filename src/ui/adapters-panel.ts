/**
 * Adapters by tier: counts that filter, and a table that draws only the rows in sight, so that thousands
 * cost what a screenful does.
 */
import type { AdapterRow } from '../server/ui/dashboard-events.js';
import { AdapterDetail } from './adapter-detail.js';
import {
  countTiers,
  TIER_NAMES,
  TIERS,
  visibleRows,
  type SortKey,
  type Tier,
  type View,
} from './adapter-rows.js';
import { AdapterLine, ROW_PX } from './adapter-line.js';
import { byId, element, setText } from './dom.js';
import { count } from './format.js';
import { keyOf, type Store } from './store.js';

const COLUMNS: [SortKey | undefined, string][] = [
  ['name', 'Name'],
  ['state', 'Tier'],
  [undefined, 'Hash'],
  ['bytes', 'Pages'],
  ['running', 'Running'],
  ['waiting', 'Waiting'],
  ['requests', 'Requests'],
];

/** Beyond what is in sight. */
const MARGIN_ROWS = 6;

export class AdaptersPanel {
  readonly #view: View = { tier: undefined, text: '', sort: 'state', descending: false };
  readonly #scroll = byId('adapters-scroll');
  readonly #body = this.#scroll.querySelector('tbody') as HTMLElement;
  readonly #above = element('tr', { 'aria-hidden': 'true' });
  readonly #below = element('tr', { 'aria-hidden': 'true' });
  readonly #lines: AdapterLine[] = [];
  readonly #headings = new Map<SortKey, HTMLElement>();
  readonly #chips = new Map<Tier | undefined, { button: HTMLElement; number: HTMLElement }>();
  readonly #detail: AdapterDetail;
  #rows: AdapterRow[] = [];
  #selected: string | undefined;

  constructor(
    private readonly store: Store,
    chatWith: (name: string) => void,
  ) {
    this.#detail = new AdapterDetail(chatWith, () => this.#select(undefined));
    const table = this.#scroll.querySelector('table') as HTMLTableElement;
    table.tHead?.rows[0]?.append(...COLUMNS.map(([key, label]) => this.#heading(key, label)));
    this.#body.append(this.#above, this.#below);
    for (const tier of [undefined, ...TIERS]) this.#chip(tier);
    const filter = byId<HTMLInputElement>('adapters-filter');
    filter.addEventListener('input', () => {
      this.#view.text = filter.value;
      this.#scroll.scrollTop = 0;
      this.draw();
    });
    this.#scroll.addEventListener('scroll', () => this.#drawLines(), { passive: true });
    new ResizeObserver(() => this.#drawLines()).observe(this.#scroll);
  }

  draw(): void {
    const all = this.store.adapters;
    const counts = countTiers(all);
    for (const [tier, { button, number }] of this.#chips) {
      setText(number, count(tier === undefined ? all.length : (counts[tier] ?? 0)));
      button.setAttribute('aria-pressed', String(this.#view.tier === tier));
    }
    for (const [key, heading] of this.#headings) {
      const order = this.#view.descending ? 'descending' : 'ascending';
      heading.setAttribute('aria-sort', key === this.#view.sort ? order : 'none');
    }
    this.#rows = visibleRows(all, this.#view);
    const shown = this.#rows.length === all.length ? '' : `${count(this.#rows.length)} of `;
    setText(byId('adapters-shown'), `${shown}${count(all.length)}`);
    this.#drawLines();
    this.#detail.draw(all.find((row) => keyOf(row) === this.#selected));
  }

  #select(row: AdapterRow | undefined): void {
    const key = row === undefined ? undefined : keyOf(row);
    this.#selected = key === this.#selected ? undefined : key;
    this.draw();
  }

  #drawLines(): void {
    const inSight = Math.ceil(this.#scroll.clientHeight / ROW_PX) + 2 * MARGIN_ROWS;
    const first = Math.max(0, Math.floor(this.#scroll.scrollTop / ROW_PX) - MARGIN_ROWS);
    const start = Math.min(first, Math.max(0, this.#rows.length - inSight));
    const rows = this.#rows.slice(start, start + inSight);
    while (this.#lines.length > rows.length) this.#lines.pop()?.node.remove();
    while (this.#lines.length < rows.length) {
      const line = new AdapterLine((row) => this.#select(row));
      this.#lines.push(line);
      this.#below.before(line.node);
    }
    rows.forEach((row, i) => this.#lines[i]?.draw(row, keyOf(row) === this.#selected));
    this.#above.style.height = `${start * ROW_PX}px`;
    this.#below.style.height = `${(this.#rows.length - start - rows.length) * ROW_PX}px`;
  }

  #heading(key: SortKey | undefined, label: string): HTMLElement {
    const isNumber = key !== undefined && key !== 'name' && key !== 'state';
    const heading = element('th', { scope: 'col', class: isNumber ? 'number' : undefined });
    if (key === undefined) {
      heading.append(label);
      return heading;
    }
    const button = element('button', { type: 'button' }, label);
    button.addEventListener('click', () => {
      const isSame = this.#view.sort === key;
      this.#view.descending = isSame ? !this.#view.descending : isNumber;
      this.#view.sort = key;
      this.draw();
    });
    heading.append(button);
    this.#headings.set(key, heading);
    return heading;
  }

  #chip(tier: Tier | undefined): void {
    const number = element('b');
    const dot = element('i', { class: 'dot', 'data-tier': tier ?? 'all' });
    const name = tier === undefined ? 'all' : (TIER_NAMES[tier] as string);
    const button = element('button', { type: 'button', 'data-tier': tier ?? 'all' });
    button.append(...(tier === undefined ? [] : [dot]), `${name} `, number);
    button.addEventListener('click', () => {
      this.#view.tier = tier;
      this.#scroll.scrollTop = 0;
      this.draw();
    });
    byId('tiers').append(button);
    this.#chips.set(tier, { button, number });
  }
}
