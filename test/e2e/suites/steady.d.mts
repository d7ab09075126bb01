// Types of steady.mjs, which stays plain JavaScript for scripts/check-steady.mjs.
export function runSteady(options: {
  requests: number;
  device?: 'auto' | 'cpu' | 'cuda';
  adapters?: number;
  /** Of the page pool. */
  memoryBytes?: number;
  /** Requests open at a time. */
  concurrency?: number;
  /** Requests that are answered alone first. */
  goldens?: number;
  /** The longest time without an event that is no stall. */
  stallMs?: number;
  seed?: number;
  say?: (line: string) => void;
}): Promise<{ problems: string[]; summary: string; deviceDescription: string }>;
