/**
 * The feed of ../ui/events: read as a stream by fetch, which can send a key, and opened anew when it ends.
 *
 * A page that nobody sees reads nothing after a while; one that is refused waits for another key.
 */
import type { DashboardEvent } from '../server/ui/dashboard-events.js';
import { readEvents, refusalOf } from './event-stream.js';
import type { Keys } from './keys.js';

export interface ConnectionEvents {
  event(event: DashboardEvent): void;
  /** Why there are no events; undefined: there are. */
  down(reason: string | undefined): void;
}

const RETRY_MS = [500, 1_000, 2_000, 5_000];
/** An event comes every second. */
const SILENCE_MS = 8_000;
const HIDDEN_MS = 60_000;

export class Connection {
  #abort: AbortController | undefined;
  #failures = 0;
  #retry: number | undefined;
  #hidden: number | undefined;
  #asked = false;

  constructor(
    private readonly keys: Keys,
    private readonly events: ConnectionEvents,
  ) {
    keys.onChange(() => this.open());
    document.addEventListener('visibilitychange', () => {
      window.clearTimeout(this.#hidden);
      if (document.hidden) this.#hidden = window.setTimeout(() => this.#close(), HIDDEN_MS);
      else if (this.#abort === undefined) this.open();
    });
  }

  open(): void {
    this.#close();
    const abort = new AbortController();
    this.#abort = abort;
    void this.#read(abort);
  }

  #close(): void {
    window.clearTimeout(this.#retry);
    this.#abort?.abort();
    this.#abort = undefined;
  }

  async #read(abort: AbortController): Promise<void> {
    let reason = 'The connection has ended.';
    let silence: number | undefined;
    const watch = () => {
      window.clearTimeout(silence);
      silence = window.setTimeout(() => abort.abort(), SILENCE_MS);
    };
    try {
      watch();
      const response = await fetch('events', {
        ...{ headers: this.keys.headers('admin'), cache: 'no-store', signal: abort.signal },
      });
      if (response.status === 401 || response.status === 403) {
        this.#refused(await refusalOf(response));
        return;
      }
      if (!response.ok || response.body === null) throw new Error(await refusalOf(response));
      for await (const data of readEvents(response.body)) {
        watch();
        this.#failures = 0;
        this.events.down(undefined);
        this.events.event(JSON.parse(data) as DashboardEvent);
      }
    } catch (error) {
      reason = abort.signal.aborted ? 'The server says nothing.' : (error as Error).message;
    } finally {
      window.clearTimeout(silence);
    }
    // Somebody has closed it, or opened another one.
    if (this.#abort !== abort) return;
    this.events.down(`${reason} Trying again.`);
    const pause = RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)];
    this.#retry = window.setTimeout(() => this.open(), pause);
  }

  /** Asks by itself once: who has closed the dialog wants to chat, or to look at the page. */
  #refused(message: string): void {
    this.events.down(`${message} What runs here is shown to the admin scope.`);
    if (this.#asked && this.keys.headers('admin').authorization === undefined) return;
    this.#asked = true;
    this.keys.ask(message, 'admin');
  }
}
