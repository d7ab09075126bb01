/** What the server is, how it is, and its numbers at one glance. */
import type { DashboardEvent, DashboardState } from '../server/ui/dashboard-events.js';
import { byId, element, setData, setText } from './dom.js';
import { bytes, count, duration, milliseconds, percent, short } from './format.js';

const STATES: Record<DashboardState, string> = {
  loading: 'loading the model',
  ready: 'ready',
  draining: 'draining',
  silent: 'the engine does not answer',
  lost: 'the engine was lost, and is being brought back',
  failed: 'the engine failed',
};

type Tile = [value: string, detail: string];

const TILES = {
  Running: ({ now }) => [count(now?.requests.running ?? 0), 'requests'],
  Waiting: ({ now }) => [count(now?.requests.waiting ?? 0), 'requests'],
  Output: ({ point }) => [shown(point.outputPerSecond, short), 'tokens/s'],
  'First token, p50': ({ point }) => quantiles(point.firstTokenMs),
  'Next token, p50': ({ point }) => quantiles(point.betweenTokensMs),
  'Prompt reuse': ({ now }) => {
    const { cachedTokens = 0, promptTokens = 0 } = now?.totals ?? {};
    return [percent(cachedTokens, promptTokens), `of ${short(promptTokens)} tokens`];
  },
  'Adapter hits': ({ now }) => {
    const { adapterHits = 0, adapterLoads = 0 } = now?.totals ?? {};
    return [percent(adapterHits, adapterHits + adapterLoads), `${short(adapterLoads)} loads`];
  },
  'Host memory': ({ now }) => [
    bytes(now?.host.bytes ?? 0),
    `of ${bytes(now?.host.budgetBytes ?? 0)}`,
  ],
  Finished: ({ now }) => {
    const { finished = 0, failed = 0 } = now?.totals ?? {};
    return [short(finished), `${short(failed)} failed`];
  },
} satisfies Record<string, (event: DashboardEvent) => Tile>;

export class Header {
  readonly #tiles = new Map<keyof typeof TILES, { value: HTMLElement; detail: HTMLElement }>();

  constructor() {
    for (const name of Object.keys(TILES) as (keyof typeof TILES)[]) {
      const tile = { value: element('b'), detail: element('small', { class: 'muted' }) };
      byId('tiles').append(
        element('div', {}, element('dt', {}, name), element('dd', {}, tile.value, tile.detail)),
      );
      this.#tiles.set(name, tile);
    }
  }

  draw(event: DashboardEvent): void {
    const { modelName, engine, state, reason, losses, uptimeMs } = event;
    document.title = `${modelName} · lorax-js`;
    setText(byId('model'), modelName);
    this.say(state, STATES[state]);
    const times = losses === 0 ? '' : `, engine lost ${losses === 1 ? 'once' : `${losses} times`}`;
    setText(byId('uptime'), `up ${duration(uptimeMs)}${times}`);
    if (engine !== undefined) {
      const { architecture, device, deviceDescription, contextTokens } = engine;
      const context = `context ${count(contextTokens)}`;
      setText(byId('device'), `${architecture} on ${device}: ${deviceDescription}, ${context}`);
    }
    this.notice(reason);
    for (const [name, tile] of this.#tiles) {
      const [value, detail] = TILES[name](event);
      setText(tile.value, value);
      setText(tile.detail, detail);
    }
  }

  /** The state as a word or two. */
  say(state: DashboardState | 'connecting' | 'down', text: string): void {
    setData(byId('state'), 'state', state);
    setText(byId('state'), text);
  }

  notice(text: string | undefined): void {
    const notice = byId('notice');
    notice.hidden = text === undefined;
    setText(notice, text ?? '');
  }
}

function shown(value: number | null, format: (value: number) => string): string {
  return value === null ? '–' : format(value);
}

function quantiles(found: { p50: number; p99: number } | null): Tile {
  return found === null
    ? ['–', 'p99 –']
    : [milliseconds(found.p50), `p99 ${milliseconds(found.p99)}`];
}
