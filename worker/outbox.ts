/**
 * Events on their way to the client: those of one turn leave in one message.
 *
 * `flush` sends at once (the end of an engine step); otherwise what was emitted leaves in a
 * microtask. Order is kept. Owned by engine-port.ts.
 */
import type { WorkerEvent, WorkerMessage } from './protocol.js';

export class Outbox {
  private events: WorkerMessage = [];
  private scheduled = false;

  constructor(private readonly post: (message: WorkerMessage) => void) {}

  emit(...events: WorkerEvent[]): void {
    this.events.push(...events);
    if (this.scheduled || events.length === 0) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.flush();
    });
  }

  flush(): void {
    if (this.events.length === 0) return;
    const message = this.events;
    this.events = [];
    this.post(message);
  }
}
