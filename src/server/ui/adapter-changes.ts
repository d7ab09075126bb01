/**
 * The rows of thousands of adapters as JSON: all of them, or those that have changed since the last time.
 */
import type { AdapterRow } from './dashboard-events.js';

export interface AdapterTexts {
  changes: string;
  /** Made when asked for, until the next `next`. */
  all(): string;
}

interface Known {
  row: AdapterRow;
  json: string;
}

export class AdapterChanges {
  /** By tenant and name. */
  #known = new Map<string, Known>();

  /** undefined: nobody knows; what was known stays. */
  next(rows: readonly AdapterRow[] | undefined): AdapterTexts {
    const known = rows === undefined ? this.#known : new Map<string, Known>();
    const changed: string[] = [];
    const gone: { name: string; tenant?: string }[] = [];
    for (const row of rows ?? []) {
      const entry = { row, json: JSON.stringify(row) };
      const key = `${row.tenant ?? ''}\0${row.name}`;
      if (this.#known.get(key)?.json !== entry.json) changed.push(entry.json);
      known.set(key, entry);
    }
    for (const [key, { row }] of this.#known) {
      if (known.has(key)) continue;
      gone.push({ name: row.name, ...(row.tenant === undefined ? {} : { tenant: row.tenant }) });
    }
    this.#known = known;
    return {
      changes: `{"all":false,"rows":[${changed.join(',')}],"gone":${JSON.stringify(gone)}}`,
      all: () => {
        const all = [...known.values()].map(({ json }) => json);
        return `{"all":true,"rows":[${all.join(',')}],"gone":[]}`;
      },
    };
  }
}
