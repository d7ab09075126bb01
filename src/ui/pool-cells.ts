/**
 * Pages -> cells of the map, each of one kind. By kind, not by place: where a page lies says nothing.
 *
 * The cells' pages always add up to the pool's. Pure.
 */
import type { AdapterRow, PageCounts } from '../server/ui/dashboard-events.js';

export const PAGE_KINDS = ['kv', 'cold', 'used', 'idle', 'retiring', 'free'] as const;
export type PageKind = (typeof PAGE_KINDS)[number];

export const KIND_NAMES: Record<PageKind, string> = {
  kv: 'KV in use',
  cold: 'cold prefixes',
  used: 'adapters in use',
  idle: 'idle adapters',
  retiring: 'retiring',
  free: 'free',
};

export interface Cell {
  kind: PageKind;
  pages: number;
  /** Whose they are, where that is known. */
  owners: { name: string; pages: number }[];
  /** Neighbours of different owners differ. */
  shade: 0 | 1;
}

export interface PoolCells {
  pagesPerCell: number;
  cells: Cell[];
  counts: Record<PageKind, number>;
}

export function poolCells(
  pages: PageCounts,
  adapters: readonly AdapterRow[],
  maxCells: number,
): PoolCells {
  const pagesPerCell = niceCeil(pages.total / maxCells);
  const owners = adapterOwners(pages.adapter, adapters);
  const used = sumOf(owners.used);
  const counts: PoolCells['counts'] = {
    ...{ kv: pages.kv, cold: pages.cold, used, idle: pages.adapter - used },
    ...{ retiring: pages.retiring, free: pages.free },
  };
  const cells = PAGE_KINDS.flatMap((kind) =>
    cellsOf(
      kind,
      counts[kind],
      kind === 'used' || kind === 'idle' ? owners[kind] : [],
      pagesPerCell,
    ),
  );
  return { pagesPerCell, cells, counts };
}

interface Owner {
  name: string;
  pages: number;
}

/** Names of one content share its pages; a tenant's are its own. */
function adapterOwners(total: number, adapters: readonly AdapterRow[]) {
  const contents = new Map<string, { name: string; pages: number; holding: number }>();
  for (const { name, tenant, hash, state, pages, holding } of adapters) {
    if (state !== 'resident') continue;
    const key = `${tenant ?? ''}\0${hash ?? name}`;
    const same = contents.get(key);
    const shown = tenant === undefined ? name : `${name} (${tenant})`;
    if (same === undefined) contents.set(key, { name: shown, pages, holding });
    else {
      same.name += `, ${shown}`;
      same.holding = Math.max(same.holding, holding);
    }
  }
  let left = total;
  const take = ({ name, pages }: Owner): Owner => {
    const taken = Math.min(pages, left);
    left -= taken;
    return { name, pages: taken };
  };
  const sorted = [...contents.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    used: sorted.filter(({ holding }) => holding > 0).map(take),
    idle: sorted.filter(({ holding }) => holding === 0).map(take),
  };
}

function cellsOf(kind: PageKind, count: number, owners: readonly Owner[], perCell: number): Cell[] {
  const queue = owners.map((owner, index) => ({ ...owner, index }));
  const cells: Cell[] = [];
  for (let left = count; left > 0; left -= perCell) {
    const cell: Cell = { kind, pages: Math.min(left, perCell), owners: [], shade: 0 };
    cell.shade = ((queue[0]?.index ?? 0) % 2) as 0 | 1;
    let room = cell.pages;
    while (room > 0 && queue.length > 0) {
      const owner = queue[0] as (typeof queue)[number];
      const taken = Math.min(room, owner.pages);
      if (taken > 0) cell.owners.push({ name: owner.name, pages: taken });
      owner.pages -= taken;
      room -= taken;
      if (owner.pages === 0) queue.shift();
    }
    cells.push(cell);
  }
  return cells;
}

/** 1, 2, 5, 10, 20, ... */
function niceCeil(value: number): number {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= value) as number);
}

const sumOf = (owners: readonly Owner[]) => owners.reduce((sum, { pages }) => sum + pages, 0);
