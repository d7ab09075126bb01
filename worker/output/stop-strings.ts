/**
 * Watches a stream of text for stop strings, however they are cut into tokens.
 *
 * Always holds: text is held back only while it is the beginning of a stop string, and no more of it
 * than that; no part of a stop string that was hit is ever given out. The match that ends first wins,
 * of several that end together the longest. Aho-Corasick over UTF-16 units: the state's depth is how
 * much is held. The automaton is built once per request; called by text-output.ts, and for the markers
 * of calls and reasoning by answer-parser.ts.
 */

/** node 0 is the root */
interface Node {
  next: Map<number, number>;
  /** Node of the longest proper suffix that is in the automaton. */
  fallback: number;
  depth: number;
  /** The longest stop string that ends here, or null. */
  stop: string | null;
}

export interface Watched {
  /** Text that may be given out. */
  text: string;
  /** The stop string that was hit; `text` ends before it. */
  stop: string | null;
  /** What came with it, behind it. */
  rest: string;
}

export class StopStrings {
  private readonly nodes: Node[] = [{ next: new Map(), fallback: 0, depth: 0, stop: null }];
  private state = 0;
  private held = '';

  constructor(stops: readonly string[]) {
    for (const stop of stops) this.insert(stop);
    this.linkFallbacks();
  }

  push(text: string): Watched {
    let state = this.state;
    for (let i = 0; i < text.length; i++) {
      state = this.step(state, text.charCodeAt(i));
      const { stop } = this.node(state);
      if (stop === null) continue;
      const seen = this.held + text.slice(0, i + 1);
      this.held = '';
      this.state = 0;
      return {
        text: seen.slice(0, seen.length - stop.length),
        stop,
        rest: text.slice(i + 1),
      };
    }
    this.state = state;
    const depth = this.node(state).depth;
    if (depth === 0 && this.held === '') return { text, stop: null, rest: '' };
    const seen = this.held + text;
    this.held = seen.slice(seen.length - depth);
    return { text: seen.slice(0, seen.length - depth), stop: null, rest: '' };
  }

  /** What was held back: nothing more is coming, so it was no stop string. */
  flush(): string {
    const { held } = this;
    this.held = '';
    this.state = 0;
    return held;
  }

  private step(from: number, unit: number): number {
    for (let state = from; ; state = this.node(state).fallback) {
      const next = this.node(state).next.get(unit);
      if (next !== undefined) return next;
      if (state === 0) return 0;
    }
  }

  private insert(stop: string): void {
    let at = 0;
    for (let i = 0; i < stop.length; i++) {
      const unit = stop.charCodeAt(i);
      let next = this.node(at).next.get(unit);
      if (next === undefined) {
        next = this.nodes.length;
        this.nodes.push({ next: new Map(), fallback: 0, depth: i + 1, stop: null });
        this.node(at).next.set(unit, next);
      }
      at = next;
    }
    if (at !== 0) this.node(at).stop = stop;
  }

  /** Breadth first: a node's fallback is shallower, hence already linked. */
  private linkFallbacks(): void {
    const order = [0];
    for (let head = 0; head < order.length; head++) {
      const parent = order[head] as number;
      for (const [unit, child] of this.node(parent).next) {
        const node = this.node(child);
        node.fallback = parent === 0 ? 0 : this.step(this.node(parent).fallback, unit);
        node.stop ??= this.node(node.fallback).stop;
        order.push(child);
      }
    }
  }

  private node(index: number): Node {
    return this.nodes[index] as Node;
  }
}
