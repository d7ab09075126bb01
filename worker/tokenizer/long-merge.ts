/**
 * Byte-pair merging of one very long run (a megabyte of spaces is a single pre-token).
 *
 * Always holds: the result is BPE's, i.e. of all adjacent pairs the one of lowest rank, leftmost
 * first, is merged until none can be. O(n log n) on integers, and it yields, so that a hostile prompt
 * stalls nobody. Used by text-encoder.ts where a run is longer than the library should be given.
 */

const STEPS_PER_TURN = 8192;
/** Ids fit 21 bits in every known vocabulary; two of them make one exact double. */
const PAIR = 2 ** 21;
/** Rank and position make one exact double too: heap keys order by rank, then leftmost. */
const POSITIONS = 2 ** 30;

export class LongMerge {
  /** left * PAIR + right -> rank */
  private readonly ranks = new Map<number, number>();
  private readonly merged: Int32Array; // [num_merges] rank -> id

  constructor(
    merges: readonly (string | readonly [string, string])[],
    private readonly ids: ReadonlyMap<string, number>,
  ) {
    this.merged = new Int32Array(merges.length);
    for (const [rank, merge] of merges.entries()) {
      const [left, right] = typeof merge === 'string' ? merge.split(' ', 2) : merge;
      const leftId = ids.get(left ?? '');
      const rightId = ids.get(right ?? '');
      const id = ids.get(`${left}${right}`);
      if (leftId === undefined || rightId === undefined || id === undefined) continue;
      this.ranks.set(leftId * PAIR + rightId, rank);
      this.merged[rank] = id;
    }
  }

  /** Appends the run's ids; false (and nothing appended) where a character is not in the vocabulary. */
  *merge(run: string, into: number[]): Generator<void, boolean> {
    const symbols: number[] = [];
    for (const character of run) {
      const id = this.ids.get(character);
      if (id === undefined) return false;
      symbols.push(id);
    }
    const length = symbols.length;
    const symbol = Int32Array.from(symbols); // [length], -1 = merged into its left neighbour
    const next = Int32Array.from({ length }, (_, i) => i + 1);
    const previous = Int32Array.from({ length }, (_, i) => i - 1);
    const heap = new MinHeap();
    const offer = (left: number) => {
      const right = next[left] as number;
      if (right >= length) return;
      const pair = (symbol[left] as number) * PAIR + (symbol[right] as number);
      const rank = this.ranks.get(pair);
      if (rank !== undefined) heap.push(rank * POSITIONS + left);
    };
    for (let i = 0; i + 1 < length; i++) {
      offer(i);
      if (i % STEPS_PER_TURN === 0) yield;
    }
    for (let step = 1; heap.size > 0; step++) {
      if (step % STEPS_PER_TURN === 0) yield;
      const key = heap.pop();
      const rank = Math.floor(key / POSITIONS);
      const left = key % POSITIONS;
      const right = next[left] as number;
      // Stale: one of the two has merged since.
      if ((symbol[left] as number) < 0 || right >= length) continue;
      const pair = (symbol[left] as number) * PAIR + (symbol[right] as number);
      if (this.ranks.get(pair) !== rank) continue;
      symbol[left] = this.merged[rank] as number;
      symbol[right] = -1;
      const after = next[right] as number;
      next[left] = after;
      if (after < length) previous[after] = left;
      if ((previous[left] as number) >= 0) offer(previous[left] as number);
      offer(left);
    }
    for (let i = 0; i < length; i++) {
      if ((symbol[i] as number) >= 0) into.push(symbol[i] as number);
    }
    return true;
  }
}

/** A binary heap of numbers. */
class MinHeap {
  private readonly keys: number[] = [];

  get size(): number {
    return this.keys.length;
  }

  push(key: number): void {
    const { keys } = this;
    let at = keys.length;
    keys.push(key);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if ((keys[parent] as number) <= key) break;
      keys[at] = keys[parent] as number;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const { keys } = this;
    const top = keys[0] as number;
    const last = keys.pop() as number;
    const size = keys.length;
    if (size === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && (keys[child + 1] as number) < (keys[child] as number)) child++;
      if ((keys[child] as number) >= last) break;
      keys[at] = keys[child] as number;
      at = child;
    }
    keys[at] = last;
    return top;
  }
}
