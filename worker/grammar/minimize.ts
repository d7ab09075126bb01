/**
 * The smallest automaton of a language, from any deterministic one: states that lead nowhere are
 * left out, and states that nothing tells apart become one (Hopcroft's refinement).
 *
 * Called by dfa.ts.
 */
import { DEAD } from './automaton.js';

export interface Table {
  numStates: number;
  numClasses: number;
  /** [numStates, numClasses]; DEAD = none. */
  targets: Int32Array;
  /** [numStates], 1 = a text may end here. */
  accepting: Uint8Array;
}

/** State 0 is the start, before and after; numStates is 0 where nothing is accepted. */
export function minimalTable(table: Table): Table {
  const live = liveStates(table);
  if (live[0] !== 1) {
    return { ...table, numStates: 0, targets: new Int32Array(0), accepting: new Uint8Array(0) };
  }
  const blockOf = refine(table, live);
  const { numClasses, targets } = table;
  // Numbered in the order in which they are met from the start.
  const order = new Map<number, number>([[blockOf[0]!, 0]]);
  const members = [0];
  const minimal: number[] = [];
  for (let at = 0; at < members.length; at++) {
    for (let index = 0; index < numClasses; index++) {
      const target = targets[members[at]! * numClasses + index]!;
      if (target === DEAD || live[target] === 0) {
        minimal.push(DEAD);
        continue;
      }
      const block = blockOf[target]!;
      if (!order.has(block)) order.set(block, members.push(target) - 1);
      minimal.push(order.get(block)!);
    }
  }
  return {
    numStates: members.length,
    numClasses,
    targets: Int32Array.from(minimal),
    accepting: Uint8Array.from(members, (state) => table.accepting[state]!),
  };
}

/** Edges by their target: those of `state` are sources[begin[state] .. begin[state + 1]). */
function reversed({ numStates, numClasses, targets }: Table) {
  const begin = new Int32Array(numStates + 1);
  for (const target of targets) if (target !== DEAD) begin[target + 1]!++;
  for (let state = 0; state < numStates; state++) begin[state + 1]! += begin[state]!;
  const fill = begin.slice();
  const edges = new Int32Array(begin[numStates]!); // source * numClasses + class
  for (const [edge, target] of targets.entries()) {
    if (target !== DEAD) edges[fill[target]!++] = edge;
  }
  return { begin, edges, numClasses };
}

function liveStates(table: Table): Uint8Array {
  const { begin, edges, numClasses } = reversed(table);
  const live = table.accepting.slice();
  const stack = [...live.keys()].filter((state) => live[state] === 1);
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    for (let i = begin[state]!; i < begin[state + 1]!; i++) {
      const source = Math.floor(edges[i]! / numClasses);
      if (live[source] === 1) continue;
      live[source] = 1;
      stack.push(source);
    }
  }
  return live;
}

/** The block of each state; states of one block accept the same texts. */
function refine(table: Table, live: Uint8Array): Int32Array {
  const { begin, edges, numClasses } = reversed(table);
  const { numStates, accepting } = table;
  const blockOf = new Int32Array(numStates).fill(DEAD);
  const blocks = [new Set<number>(), new Set<number>()];
  for (let state = 0; state < numStates; state++) {
    if (live[state] === 0) continue;
    blockOf[state] = accepting[state]!;
    blocks[accepting[state]!]!.add(state);
  }
  // Splitters still to be tried. The dead count as a block that has been split off already, so
  // both blocks are tried, not the smaller alone.
  const waiting = [0, 1];
  const isWaiting = [true, true];
  for (let splitter = waiting.pop(); splitter !== undefined; splitter = waiting.pop()) {
    isWaiting[splitter] = false;
    const sources: number[][] = Array.from({ length: numClasses }, () => []);
    for (const state of blocks[splitter]!) {
      for (let i = begin[state]!; i < begin[state + 1]!; i++) {
        const edge = edges[i]!;
        const source = Math.floor(edge / numClasses);
        if (live[source] === 1) sources[edge % numClasses]!.push(source);
      }
    }
    for (const into of sources) {
      const touched = new Map<number, number[]>();
      for (const source of into) {
        const block = blockOf[source]!;
        const inside = touched.get(block);
        if (inside === undefined) touched.set(block, [source]);
        else inside.push(source);
      }
      for (const [block, inside] of touched) {
        const rest = blocks[block]!;
        if (inside.length === rest.size) continue;
        const fresh = blocks.push(new Set(inside)) - 1;
        isWaiting.push(false);
        for (const state of inside) {
          rest.delete(state);
          blockOf[state] = fresh;
        }
        const smaller = rest.size < inside.length ? block : fresh;
        const next = isWaiting[block] ? fresh : smaller;
        if (!isWaiting[next]) {
          waiting.push(next);
          isWaiting[next] = true;
        }
      }
    }
  }
  return blockOf;
}
