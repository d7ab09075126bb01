/**
 * Some texts as the smallest automaton that reads exactly them, however many and of whatever letters.
 *
 * A trie whose equal ends are shared: made from the last node to the first, since a node comes after
 * its parent. Written out by dfa-rules.ts.
 */
import { CodePoints, type Range } from './code-points.js';
import type { Edge, StateGraph } from './dfa-rules.js';
import type { Place } from './faults.js';
import type { Work } from './work.js';

interface TrieNode {
  children: Map<number, number>;
  isEnd: boolean;
}

export class TextGraph implements StateGraph {
  readonly start: number;
  private readonly states: { edges: Edge[]; accepts: boolean }[] = [];

  constructor(texts: Iterable<string>, work: Work, place: Place) {
    const nodes: TrieNode[] = [{ children: new Map(), isEnd: false }];
    for (const text of texts) {
      work.spend(text.length, place);
      let at = nodes[0]!;
      for (const char of text) {
        const codePoint = char.codePointAt(0)!;
        const known = at.children.get(codePoint);
        const next = known ?? nodes.push({ children: new Map(), isEnd: false }) - 1;
        at.children.set(codePoint, next);
        at = nodes[next]!;
      }
      at.isEnd = true;
    }
    this.start = this.shared(nodes);
  }

  get numStates(): number {
    return this.states.length;
  }

  edges(state: number): Edge[] {
    return this.states[state]!.edges;
  }

  accepts(state: number): boolean {
    return this.states[state]!.accepts;
  }

  /** Returns the state of the first node. */
  private shared(nodes: TrieNode[]): number {
    const known = new Map<string, number>();
    const stateOf = new Int32Array(nodes.length);
    for (let at = nodes.length - 1; at >= 0; at--) {
      const { children, isEnd } = nodes[at]!;
      const ranges = new Map<number, Range[]>();
      for (const [codePoint, child] of children) {
        const target = stateOf[child]!;
        ranges.set(target, [...(ranges.get(target) ?? []), [codePoint, codePoint]]);
      }
      const edges = [...ranges].map(([target, each]) => ({ target, on: CodePoints.of(each) }));
      edges.sort((a, b) => a.target - b.target);
      const key = `${isEnd}${edges.map(({ target, on }) => `|${target}:${on.ranges.join()}`)}`;
      const state = known.get(key) ?? this.states.push({ edges, accepts: isEnd }) - 1;
      known.set(key, state);
      stateOf[at] = state;
    }
    return stateOf[0]!;
  }
}
