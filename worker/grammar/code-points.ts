/**
 * Sets of Unicode scalar values: what a character class means, whatever it was written in.
 *
 * Always holds: `ranges` are inclusive, sorted, apart by at least one, and without surrogates, which
 * no UTF-8 text holds. Immutable. Used by the regex and the automata.
 */

export type Range = readonly [first: number, last: number];

const LAST = 0x10ffff;
const SURROGATES: Range = [0xd800, 0xdfff];

export class CodePoints {
  private constructor(readonly ranges: readonly Range[]) {}

  static readonly none = new CodePoints([]);
  static readonly all = CodePoints.of([[0, LAST]]);

  static of(ranges: readonly Range[]): CodePoints {
    const parts = ranges.flatMap(withoutSurrogates).sort((a, b) => a[0] - b[0]);
    const merged: [number, number][] = [];
    for (const [first, last] of parts) {
      const previous = merged.at(-1);
      if (previous !== undefined && first <= previous[1] + 1) {
        previous[1] = Math.max(previous[1], last);
      } else {
        merged.push([first, last]);
      }
    }
    return new CodePoints(merged);
  }

  static single(codePoint: number): CodePoints {
    return CodePoints.of([[codePoint, codePoint]]);
  }

  static ofText(text: string): CodePoints {
    return CodePoints.of([...text].map((char) => [char.codePointAt(0)!, char.codePointAt(0)!]));
  }

  get isEmpty(): boolean {
    return this.ranges.length === 0;
  }

  /** Its only member, or null where it has none or several. */
  get only(): number | null {
    const [range] = this.ranges;
    return this.ranges.length === 1 && range![0] === range![1] ? range![0] : null;
  }

  has(codePoint: number): boolean {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const [first, last] = this.ranges[middle]!;
      if (codePoint < first) high = middle - 1;
      else if (codePoint > last) low = middle + 1;
      else return true;
    }
    return false;
  }

  union(other: CodePoints): CodePoints {
    return CodePoints.of([...this.ranges, ...other.ranges]);
  }

  complement(): CodePoints {
    const ranges: Range[] = [];
    let next = 0;
    for (const [first, last] of this.ranges) {
      if (first > next) ranges.push([next, first - 1]);
      next = last + 1;
    }
    if (next <= LAST) ranges.push([next, LAST]);
    return CodePoints.of(ranges);
  }

  minus(other: CodePoints): CodePoints {
    return this.complement().union(other).complement();
  }
}

function withoutSurrogates([first, last]: Range): Range[] {
  const [low, high] = SURROGATES;
  if (last < low || first > high) return first <= last ? [[first, last]] : [];
  const parts: Range[] = [];
  if (first < low) parts.push([first, low - 1]);
  if (last > high) parts.push([high + 1, last]);
  return parts;
}

/**
 * The code points, cut so finely that each part lies wholly inside or outside of every given set.
 * A part may have several ranges; together they are everything.
 */
export function partition(sets: readonly CodePoints[]): CodePoints[] {
  // From one edge to the next the same sets are inside.
  const edges = new Map<number, number[]>([[0, []]]);
  const edgeOf = (codePoint: number, set: number) =>
    edges.set(codePoint, [...(edges.get(codePoint) ?? []), set]);
  for (const [index, { ranges }] of sets.entries()) {
    for (const [first, last] of ranges) {
      edgeOf(first, index);
      if (last < LAST) edgeOf(last + 1, index);
    }
  }
  const starts = [...edges.keys()].sort((a, b) => a - b);
  const inside = new Set<number>();
  const parts = new Map<string, Range[]>();
  for (const [i, start] of starts.entries()) {
    for (const set of edges.get(start)!) if (!inside.delete(set)) inside.add(set);
    const signature = [...inside].sort((a, b) => a - b).join();
    const ranges = parts.get(signature) ?? [];
    ranges.push([start, (starts[i + 1] ?? LAST + 1) - 1]);
    parts.set(signature, ranges);
  }
  return [...parts.values()].map((ranges) => CodePoints.of(ranges)).filter((set) => !set.isEmpty);
}
