/**
 * The two keys of this tab: the admin's, which shows the server, and a tenant's, which generates. In
 * sessionStorage, so they end with the tab; sent as a header, so they are in no address and no log.
 */
import { byId, setText } from './dom.js';

export type KeyKind = 'admin' | 'api';

const NAME: Record<KeyKind, string> = { admin: 'lorax-admin-key', api: 'lorax-api-key' };

export class Keys {
  readonly #dialog = byId<HTMLDialogElement>('keys');
  readonly #inputs: Record<KeyKind, HTMLInputElement> = {
    admin: byId<HTMLInputElement>('admin-key'),
    api: byId<HTMLInputElement>('api-key'),
  };
  readonly #listeners: (() => void)[] = [];

  constructor() {
    byId('open-keys').addEventListener('click', () => this.ask());
    byId('keys-cancel').addEventListener('click', () => this.#dialog.close());
    byId('keys-forget').addEventListener('click', () => this.#keep({ admin: '', api: '' }));
    this.#dialog.querySelector('form')?.addEventListener('submit', (event) => {
      event.preventDefault();
      const { admin, api } = this.#inputs;
      this.#keep({ admin: admin.value.trim(), api: api.value.trim() });
    });
  }

  headers(kind: KeyKind): Record<string, string> {
    const key = sessionStorage.getItem(NAME[kind]);
    return key === null ? {} : { authorization: `Bearer ${key}` };
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  ask(why = '', kind: KeyKind = 'admin'): void {
    setText(byId('keys-why'), why);
    for (const each of ['admin', 'api'] as const) {
      this.#inputs[each].value = sessionStorage.getItem(NAME[each]) ?? '';
    }
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#inputs[kind].focus();
  }

  #keep(keys: Record<KeyKind, string>): void {
    for (const kind of ['admin', 'api'] as const) {
      if (keys[kind] === '') sessionStorage.removeItem(NAME[kind]);
      else sessionStorage.setItem(NAME[kind], keys[kind]);
      this.#inputs[kind].value = '';
    }
    this.#dialog.close();
    for (const listener of this.#listeners) listener();
  }
}
