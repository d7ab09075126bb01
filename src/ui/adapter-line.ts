/** One row of the table of adapters; stays where it is and shows whichever adapter comes there. */
import type { AdapterRow } from '../server/ui/dashboard-events.js';
import { TIER_NAMES } from './adapter-rows.js';
import { element, setData, setText, setTitle } from './dom.js';
import { count } from './format.js';

/** styles/adapters.css says the same. */
export const ROW_PX = 30;

export class AdapterLine {
  readonly node = element('tr');
  readonly #name = element('button', { type: 'button', class: 'name' });
  readonly #tenant = element('small', { class: 'muted' });
  readonly #dot = element('i', { class: 'dot' });
  readonly #tier = element('span');
  readonly #error = element('small', { class: 'muted error' });
  readonly #hash = element('code');
  readonly #numbers = Array.from({ length: 4 }, () => element('td', { class: 'number' }));
  #row: AdapterRow | undefined;

  constructor(select: (row: AdapterRow) => void) {
    this.#name.addEventListener('click', () => {
      if (this.#row !== undefined) select(this.#row);
    });
    this.node.append(
      element('th', { scope: 'row' }, this.#name, this.#tenant),
      element('td', {}, this.#dot, this.#tier, this.#error),
      element('td', {}, this.#hash),
      ...this.#numbers,
    );
  }

  draw(row: AdapterRow, isSelected: boolean): void {
    this.#row = row;
    setData(this.node, 'name', row.name);
    this.node.classList.toggle('selected', isSelected);
    this.#name.setAttribute('aria-expanded', String(isSelected));
    setText(this.#name, row.name);
    setTitle(this.#name, row.name);
    setText(this.#tenant, row.tenant ?? '');
    setData(this.#dot, 'tier', row.state);
    setText(this.#tier, TIER_NAMES[row.state] ?? row.state);
    setText(this.#error, row.error ?? '');
    setTitle(this.#error, row.error ?? '');
    setText(this.#hash, row.hash?.slice(0, 8) ?? '');
    const numbers = [row.pages, row.running, row.waiting, row.requests];
    numbers.forEach((number, i) => {
      const cell = this.#numbers[i] as HTMLElement;
      setText(cell, number === 0 ? '·' : count(number));
      cell.classList.toggle('none', number === 0);
    });
  }
}
