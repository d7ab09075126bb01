// What the dashboard computes before it draws: cells of the pool's map, the table's rows, numbers.
import { describe, expect, test } from 'vitest';
import type { AdapterRow, PageCounts } from '../../src/server/ui/dashboard-events.js';
import { countTiers, visibleRows, type View } from '../../src/ui/adapter-rows.js';
import { bytes, duration, milliseconds, percent, short } from '../../src/ui/format.js';
import { poolCells } from '../../src/ui/pool-cells.js';

const row = (name: string, fields: Partial<AdapterRow> = {}): AdapterRow => ({
  ...{ name, state: 'resident', source: `/adapters/${name}`, bytes: 0, pages: 0, rank: 8 },
  ...{ running: 0, waiting: 0, holding: 0, requests: 0, hash: `hash-of-${name}` },
  ...fields,
});

describe('cells of the pool', () => {
  const adapters = [
    row('a', { pages: 7, holding: 1 }),
    row('b', { pages: 9, holding: 2 }),
    row('c', { pages: 4 }),
    row('also-c', { pages: 4, hash: 'hash-of-c' }),
    row('elsewhere', { pages: 100, state: 'host' }),
  ];
  const pages = (fields: Partial<PageCounts>): PageCounts => {
    const counts = { free: 0, kv: 0, cold: 0, adapter: 0, retiring: 0, ...fields };
    return { ...counts, total: Object.values(counts).reduce((sum, each) => sum + each, 0) };
  };

  test.each<[string, PageCounts, number]>([
    ['a page each', pages({ free: 50, kv: 11, cold: 7, adapter: 20, retiring: 1 }), 1],
    ['2 pages each', pages({ free: 150, kv: 11, cold: 7, adapter: 20, retiring: 3 }), 2],
    ['5000 pages each', pages({ free: 300_001, kv: 11, cold: 77_777, adapter: 20 }), 5000],
    ['adapters that nobody lists', pages({ free: 3, adapter: 90 }), 1],
    ['lists that are ahead of the counts', pages({ free: 3, adapter: 10 }), 1],
    ['nothing but free', pages({ free: 1 }), 1],
  ])('%s: they add up, kind by kind', (_, counts, perCell) => {
    const { cells, pagesPerCell, counts: byKind } = poolCells(counts, adapters, 100);
    expect(pagesPerCell).toBe(perCell);
    const sum = (kind?: string) =>
      cells
        .filter((cell) => kind === undefined || cell.kind === kind)
        .reduce((total, cell) => total + cell.pages, 0);
    expect(sum()).toBe(counts.total);
    for (const kind of ['kv', 'cold', 'retiring', 'free'] as const)
      expect(sum(kind)).toBe(counts[kind]);
    expect(sum('used') + sum('idle')).toBe(counts.adapter);
    for (const [kind, count] of Object.entries(byKind)) expect(sum(kind)).toBe(count);
    for (const cell of cells) {
      expect(cell.pages).toBeGreaterThan(0);
      expect(cell.pages).toBeLessThanOrEqual(perCell);
      const owned = cell.owners.reduce((total, owner) => total + owner.pages, 0);
      expect(owned).toBeLessThanOrEqual(cell.pages);
    }
  });

  test('adapters have their pages, and names of one content share them', () => {
    const { cells, counts } = poolCells(pages({ free: 2, adapter: 20 }), adapters, 1000);
    expect(counts).toMatchObject({ used: 16, idle: 4 });
    const owned = new Map<string, number>();
    for (const { owners } of cells) {
      for (const { name, pages } of owners) owned.set(name, (owned.get(name) ?? 0) + pages);
    }
    expect([...owned]).toEqual([
      ['a', 7],
      ['b', 9],
      ['c, also-c', 4],
    ]);
    // Where one ends and the next begins can be seen.
    expect(
      cells
        .filter(({ kind }) => kind === 'used')
        .map(({ shade }) => shade)
        .join(''),
    ).toBe(`${'0'.repeat(7)}${'1'.repeat(9)}`);
  });
});

describe('rows of the table', () => {
  const rows = [
    row('zebra', { requests: 5 }),
    row('ant', { state: 'failed', error: 'It is broken.', requests: 1 }),
    row('bee', { state: 'host', hash: 'abcdef123456', requests: 9 }),
    row('bee', { state: 'host', tenant: 'red' }),
  ];
  const view = (fields: Partial<View> = {}): View => ({
    ...{ tier: undefined, text: '', sort: 'state', descending: false, ...fields },
  });
  const shown = (fields: Partial<View> = {}) =>
    visibleRows(rows, view(fields)).map(({ name, tenant }) => `${tenant ?? ''}/${name}`);

  test('by tier and name, or by what was chosen', () => {
    expect(shown()).toEqual(['/zebra', '/bee', 'red/bee', '/ant']);
    expect(shown({ sort: 'name' })).toEqual(['/ant', '/bee', 'red/bee', '/zebra']);
    expect(shown({ sort: 'name', descending: true })[0]).toBe('/zebra');
    expect(shown({ sort: 'requests', descending: true }).slice(0, 2)).toEqual(['/bee', '/zebra']);
  });

  test('those of a tier, or with a piece of a name, hash, source or tenant', () => {
    expect(shown({ tier: 'failed' })).toEqual(['/ant']);
    expect(shown({ text: ' BEE ' })).toEqual(['/bee', 'red/bee']);
    expect(shown({ text: 'abcdef' })).toEqual(['/bee']);
    expect(shown({ text: 'red' })).toEqual(['red/bee']);
    expect(shown({ text: '/adapters/z' })).toEqual(['/zebra']);
    expect(shown({ tier: 'host', text: 'zebra' })).toEqual([]);
  });

  test('2,000 of them cost a few milliseconds', () => {
    const many = Array.from({ length: 2000 }, (_, i) => row(`customer-${i}`, { requests: i % 7 }));
    const begin = performance.now();
    for (let i = 0; i < 20; i++) visibleRows(many, view({ sort: 'requests', text: 'customer' }));
    expect((performance.now() - begin) / 20).toBeLessThan(50);
    expect(countTiers(many)).toMatchObject({ resident: 2000, failed: 0 });
  });
});

test('numbers in few characters', () => {
  expect([0, 0.123, 4.26, 42.4, 4200, 42_400, 420_400, 4.2e6].map(short)).toEqual([
    ...['0', '0.12', '4.3', '42', '4,200', '42.4k', '420k', '4.2M'],
  ]);
  expect([0, 0.123, 42.4, 420.4, 4200, 42_000, 90_000].map(milliseconds)).toEqual([
    ...['0 ms', '0.12 ms', '42.4 ms', '420 ms', '4.2 s', '42 s', '1.5 min'],
  ]);
  expect([0, 65536, 5e7, 1.2e12].map(bytes)).toEqual(['0 B', '64 KiB', '47.7 MiB', '1.1 TiB']);
  expect([999, 61_000, 3_661_000, 90_000_000].map(duration)).toEqual([
    ...['0 s', '1 min 1 s', '1 h 1 min', '1 d 1 h'],
  ]);
  expect([percent(0, 0), percent(1, 3), percent(5, 5)]).toEqual(['–', '33.3 %', '100 %']);
});
