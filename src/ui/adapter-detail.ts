/** All that is known of the adapter that was chosen in the table. */
import type { AdapterRow } from '../server/ui/dashboard-events.js';
import { TIER_NAMES } from './adapter-rows.js';
import { byId, element, setText } from './dom.js';
import { bytes, count } from './format.js';

const FIELDS: Record<string, (row: AdapterRow) => string> = {
  Tier: ({ state }) => TIER_NAMES[state] ?? state,
  Why: ({ error }) => error ?? '',
  Source: ({ source }) => source,
  Tenant: ({ tenant }) => tenant ?? '',
  Hash: ({ hash }) => hash ?? '',
  Size: (row) =>
    row.bytes === 0 ? '' : `${bytes(row.bytes)}, ${count(row.pages)} pages, rank ${row.rank}`,
  Requests: ({ running, waiting, requests }) =>
    `${count(running)} running, ${count(waiting)} waiting, ${count(requests)} since the start`,
};

export class AdapterDetail {
  readonly #host = byId('adapter-detail');
  readonly #name = element('h3');
  readonly #values = new Map<string, HTMLElement>();
  #row: AdapterRow | undefined;

  constructor(chatWith: (name: string) => void, close: () => void) {
    const list = element('dl');
    for (const field of Object.keys(FIELDS)) {
      const value = element('dd');
      list.append(element('div', {}, element('dt', {}, field), value));
      this.#values.set(field, value);
    }
    const chat = element('button', { type: 'button' }, 'Chat with it');
    chat.addEventListener('click', () => {
      if (this.#row !== undefined) chatWith(this.#row.name);
    });
    const done = element('button', { type: 'button' }, 'Close');
    done.addEventListener('click', close);
    this.#host.append(element('header', {}, this.#name, chat, done), list);
  }

  draw(row: AdapterRow | undefined): void {
    this.#row = row;
    this.#host.hidden = row === undefined;
    if (row === undefined) return;
    setText(this.#name, row.name);
    for (const [field, value] of this.#values) {
      const text = (FIELDS[field] as (row: AdapterRow) => string)(row);
      setText(value, text);
      (value.parentElement as HTMLElement).hidden = text === '';
    }
  }
}
