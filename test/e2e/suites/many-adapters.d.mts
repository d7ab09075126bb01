// Types of many-adapters.mjs, which stays plain JavaScript for scripts/check-adapters.mjs.
export function runManyAdapters(options: {
  adapters: number;
  /** How many of them the page pool could hold if it held nothing else. */
  resident: number;
  requests: number;
  rank?: number;
  /** Requests open at a time. */
  concurrency?: number;
  device?: 'auto' | 'cpu' | 'cuda';
  seed?: number;
  say?: (line: string) => void;
}): Promise<{ problems: string[]; summary: string; deviceDescription: string }>;
