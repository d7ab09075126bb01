/**
 * Brings the engine back after it was lost, before the next request asks for it: an observer that hears
 * of lost workers by what their requests fail with.
 */
import { LoraxError } from '../../errors.js';
import type { Engine } from '../../types.js';
import type { EngineObserver } from './observed-engine.js';

const LOST: ReadonlySet<string> = new Set(['WORKER_DIED', 'ENGINE_LOST']);

export interface KeeperEvents {
  lost(error: LoraxError): void;
  back(): void;
  /** It does not come back: the process is of no use any more. */
  gone(error: unknown): void;
}

export function keepEngine(engine: () => Engine, events: KeeperEvents): EngineObserver {
  let returning = false;
  const bringBack = async (error: LoraxError) => {
    // All requests of one engine fail at once.
    if (returning) return;
    returning = true;
    events.lost(error);
    try {
      await engine().ready();
      events.back();
    } catch (failure) {
      events.gone(failure);
    } finally {
      returning = false;
    }
  };
  return () => ({
    end: ({ error }) => {
      if (LoraxError.isInstance(error) && LOST.has(error.code)) void bringBack(error);
    },
  });
}
