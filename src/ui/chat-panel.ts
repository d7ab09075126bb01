/** The chat: one or two conversations that get the same questions, through the API that clients use. */
import { ChatLane, type Sampling } from './chat-lane.js';
import { byId, element } from './dom.js';
import type { Keys } from './keys.js';
import type { Store } from './store.js';

/** More suggestions are of no use to anybody who types. */
const MAX_SUGGESTIONS = 2_000;

export class ChatPanel {
  readonly #lanes: ChatLane[];
  readonly #prompt = byId<HTMLTextAreaElement>('prompt');
  readonly #compare = byId<HTMLInputElement>('compare');
  readonly #send = byId<HTMLButtonElement>('send');
  readonly #stop = byId<HTMLButtonElement>('stop');
  #base = '';
  #suggested = '';

  constructor(
    private readonly keys: Keys,
    private readonly store: Store,
  ) {
    const base = () => this.#base;
    this.#lanes = ['Model', 'Second model'].map((label) => new ChatLane(keys, base, label));
    byId('lanes').append(...this.#lanes.map(({ node }) => node));
    this.#showLanes();
    this.#compare.addEventListener('change', () => this.#showLanes());
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#ask();
    });
    this.#prompt.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.#ask();
    });
    this.#stop.addEventListener('click', () => this.#lanes.forEach((lane) => lane.stop()));
    byId('chat-clear').addEventListener('click', () => this.#lanes.forEach((lane) => lane.clear()));
    keys.onChange(() => void this.suggest());
    void this.suggest();
  }

  chatWith(name: string): void {
    if (this.#lanes[0] !== undefined) this.#lanes[0].model = name;
    this.#prompt.focus();
  }

  /** Names for the field: those that the key may use, or that the table shows. */
  async suggest(): Promise<void> {
    let names = this.store.adapters.map(({ name }) => name);
    try {
      const headers = this.keys.headers('api');
      const response = await fetch('../v1/models', { headers, cache: 'no-store' });
      if (response.ok) {
        const { data } = (await response.json()) as {
          data: { id: string; parent: string | null }[];
        };
        this.#base = data.find(({ parent }) => parent === null)?.id ?? this.#base;
        names = data.map(({ id }) => id);
      }
    } catch {
      // Any name can be typed.
    }
    this.#base ||= this.store.event?.modelName ?? '';
    const shown = [...new Set([this.#base, ...names])].filter(Boolean).slice(0, MAX_SUGGESTIONS);
    if (shown.join('\0') === this.#suggested) return;
    this.#suggested = shown.join('\0');
    byId('models').replaceChildren(...shown.map((value) => element('option', { value })));
  }

  #showLanes(): void {
    const two = this.#compare.checked;
    byId('chat').classList.toggle('two', two);
    document.body.classList.toggle('comparing', two);
    if (this.#lanes[1] !== undefined) this.#lanes[1].node.hidden = !two;
  }

  async #ask(): Promise<void> {
    const content = this.#prompt.value.trim();
    if (content === '' || this.#send.disabled) return;
    const asked = this.#lanes.slice(0, this.#compare.checked ? 2 : 1);
    this.#prompt.value = '';
    [this.#send.disabled, this.#stop.disabled] = [true, false];
    await Promise.all(asked.map((lane) => lane.ask(content, this.#sampling())));
    [this.#send.disabled, this.#stop.disabled] = [false, true];
  }

  #sampling(): Sampling {
    const numberIn = (id: string) => {
      const { valueAsNumber } = byId<HTMLInputElement>(id);
      return Number.isNaN(valueAsNumber) ? undefined : valueAsNumber;
    };
    const [temperature, maxTokens] = [numberIn('temperature'), numberIn('max-tokens')];
    return {
      ...(temperature === undefined ? {} : { temperature }),
      ...(maxTokens === undefined ? {} : { maxTokens }),
    };
  }
}
