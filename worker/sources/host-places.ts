/**
 * How many files are under way from each host: places, given out in order of arrival.
 *
 * A host's places are its own, so one that hangs keeps nobody else waiting; and a download that has
 * fallen silent gives its place up (http-file.ts), so that a few that hang do not keep the others of
 * their host waiting either. Called by http-file.ts.
 */
import { cancelled } from './fetch-failure.js';

interface Host {
  taken: number;
  waiting: (() => void)[];
}

export class HostPlaces {
  private readonly hosts = new Map<string, Host>();

  constructor(private readonly perHost: number) {}

  /** Resolves to the function that gives the place back; calling it again does nothing. */
  async take(host: string, signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw cancelled(signal);
    const entry = this.hosts.get(host) ?? { taken: 0, waiting: [] };
    this.hosts.set(host, entry);
    if (entry.taken >= this.perHost) await this.queue(entry, signal);
    else entry.taken++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      // The place passes on directly, so that nobody who comes later can take it.
      const next = entry.waiting.shift();
      if (next !== undefined) return next();
      entry.taken--;
      if (entry.taken === 0) this.hosts.delete(host);
    };
  }

  private queue(entry: Host, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        entry.waiting.splice(entry.waiting.indexOf(enter), 1);
        reject(cancelled(signal));
      };
      const enter = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      entry.waiting.push(enter);
      signal.addEventListener('abort', leave, { once: true });
    });
  }
}
