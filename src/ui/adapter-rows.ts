/** Which adapters the table shows, and in which order. Pure. */
import type { AdapterRow } from '../server/ui/dashboard-events.js';

/** Nearest to the computation first. */
export const TIERS = ['resident', 'host', 'on-disk', 'fetching', 'absent', 'failed'] as const;
export type Tier = (typeof TIERS)[number];

export const TIER_NAMES: Record<string, string> = {
  resident: 'resident',
  host: 'host memory',
  'on-disk': 'on disk',
  fetching: 'fetching',
  absent: 'absent',
  failed: 'failed',
};

export type SortKey = 'name' | 'state' | 'bytes' | 'running' | 'waiting' | 'requests';

export interface View {
  tier: Tier | undefined;
  /** Of name, tenant, hash or source, in any case. */
  text: string;
  sort: SortKey;
  descending: boolean;
}

export function countTiers(rows: readonly AdapterRow[]): Record<string, number> {
  const counts: Record<string, number> = Object.fromEntries(TIERS.map((tier) => [tier, 0]));
  for (const { state } of rows) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}

export function visibleRows(rows: readonly AdapterRow[], view: View): AdapterRow[] {
  const wanted = view.text.trim().toLowerCase();
  const found = rows.filter(
    (row) =>
      (view.tier === undefined || row.state === view.tier) &&
      (wanted === '' ||
        [row.name, row.tenant, row.hash, row.source].some((each) =>
          each?.toLowerCase().includes(wanted),
        )),
  );
  const rank = (row: AdapterRow) => TIERS.indexOf(row.state as Tier);
  const compare = (a: AdapterRow, b: AdapterRow): number => {
    if (view.sort === 'name') return 0;
    return view.sort === 'state' ? rank(a) - rank(b) : a[view.sort] - b[view.sort];
  };
  const sign = view.descending ? -1 : 1;
  const nameSign = view.sort === 'name' ? sign : 1;
  return found.sort((a, b) => sign * compare(a, b) || nameSign * byName(a, b));
}

function byName(a: AdapterRow, b: AdapterRow): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return (a.tenant ?? '') < (b.tenant ?? '') ? -1 : 1;
}
