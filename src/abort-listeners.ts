/**
 * One listener per signal, however many requests share it.
 *
 * Node warns of a leak at the eleventh listener of one signal, and twenty calls under one signal
 * are an ordinary thing. The listener goes with the last of its requests. Used by open-request.ts.
 */

const callbacks = new WeakMap<AbortSignal, { all: Set<() => void>; listener: () => void }>();

/** Returns what takes the callback off again. */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let entry = callbacks.get(signal);
  if (entry === undefined) {
    const all = new Set<() => void>();
    const listener = () => {
      callbacks.delete(signal);
      for (const each of [...all]) each();
    };
    entry = { all, listener };
    callbacks.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { all, listener } = entry;
  all.add(callback);
  return () => {
    all.delete(callback);
    if (all.size > 0 || callbacks.get(signal)?.all !== all) return;
    callbacks.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}
