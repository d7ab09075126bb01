/**
 * How much one constraint may cost: steps are counted, and long work is done in turns.
 *
 * Grammars are made on the worker's thread, between the messages of open streams. `spend` throws
 * once a constraint has taken more than any honest one needs; `turn` lets others go on. Passed
 * through everything in worker/grammar/ that loops over what a user wrote.
 */
import { setImmediate as nextTick } from 'node:timers/promises';
import { unsupported, type Place } from './faults.js';

const MAX_STEPS = 3_000_000;
const TURN_MS = 4;

export class Work {
  private left = MAX_STEPS;
  private turnEnds = performance.now() + TURN_MS;

  spend(steps: number, place: Place): void {
    this.left -= steps;
    if (this.left < 0) {
      throw unsupported(place, 'takes too much work to become a grammar; make it simpler.');
    }
  }

  /** Resolves at once unless this turn has lasted long enough. */
  async turn(): Promise<void> {
    if (performance.now() < this.turnEnds) return;
    await nextTick();
    this.turnEnds = performance.now() + TURN_MS;
  }
}
