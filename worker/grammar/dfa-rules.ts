/**
 * An automaton as grammar rules: a rule a state, chains of states as one sequence.
 *
 * The rules are right-linear and no two alternatives of one begin alike, so a matcher is in one place
 * at a time and knows what is forced. `Writing` says how a character of the language looks in the
 * output: as it is, or inside a JSON string.
 */
import type { CodePoints } from './code-points.js';
import { alternatives, repeat, rule, sequence, type Expression } from './expression.js';
import type { Grammar } from './gbnf.js';

export interface Edge {
  target: number;
  on: CodePoints;
}

/** A finite automaton as it is written out: from every state some text can end. */
export interface StateGraph {
  readonly numStates: number;
  readonly start: number;
  /** Each target once. */
  edges(state: number): Edge[];
  accepts(state: number): boolean;
}

interface Writing {
  character(set: CodePoints): Expression;
  /** What stands where a text of the language ends. */
  end: Expression;
}

export function dfaRules(
  grammar: Grammar,
  dfa: StateGraph,
  stem: string,
  writing: Writing,
): Expression {
  return new Rules(grammar, dfa, stem, writing).from(dfa.start);
}

class Rules {
  private readonly names = new Map<number, string>();
  /** How many states lead to each. */
  private readonly numSources: Int32Array;

  constructor(
    private readonly grammar: Grammar,
    private readonly dfa: StateGraph,
    private readonly stem: string,
    private readonly writing: Writing,
  ) {
    this.numSources = new Int32Array(dfa.numStates);
    for (let state = 0; state < dfa.numStates; state++) {
      for (const { target } of dfa.edges(state)) this.numSources[target]!++;
    }
  }

  from(start: number): Expression {
    if (this.dfa.numStates === 0) return alternatives();
    const waiting: number[] = [];
    const first = this.chain(start, waiting);
    for (const state of waiting) {
      this.grammar.define(this.names.get(state)!, this.chain(state, waiting));
    }
    return first;
  }

  /** All from `state` on, as far as only one way leads; what comes then is named. */
  private chain(state: number, waiting: number[]): Expression {
    const items: Expression[] = [];
    for (let at = state; ;) {
      const edges = this.dfa.edges(at);
      const loop = edges.find(({ target }) => target === at);
      const others = edges.filter((edge) => edge !== loop);
      const [only] = others;
      if (loop !== undefined) items.push(repeat(this.writing.character(loop.on), 0, Infinity));
      const isLink = others.length === 1 && !this.dfa.accepts(at);
      if (isLink && this.isInner(only!.target)) {
        items.push(this.writing.character(only!.on));
        at = only!.target;
        continue;
      }
      const options = others.map(({ target, on }) =>
        sequence(this.writing.character(on), this.go(target, waiting)),
      );
      if (this.dfa.accepts(at)) options.push(this.writing.end);
      return sequence(...counted([...items, alternatives(...options)]));
    }
  }

  /** Reached from one place alone, so that it needs no name. */
  private isInner(state: number): boolean {
    return this.numSources[state] === 1 && state !== this.dfa.start;
  }

  private go(state: number, waiting: number[]): Expression {
    if (this.dfa.edges(state).length === 0) return this.writing.end;
    let name = this.names.get(state);
    if (name === undefined) {
      name = this.grammar.fresh(`${this.stem}-${state}`);
      this.names.set(state, name);
      waiting.push(state);
    }
    return rule(name);
  }
}

/** Runs of the same set become one with a count. */
function counted(items: Expression[]): Expression[] {
  const runs: { item: Expression; times: number }[] = [];
  for (const item of items) {
    const last = runs.at(-1);
    if (item.kind === 'set' && last?.item.kind === 'set' && isSameSet(item.set, last.item.set)) {
      last.times++;
    } else {
      runs.push({ item, times: 1 });
    }
  }
  return runs.map(({ item, times }) => repeat(item, times, times));
}

function isSameSet(a: CodePoints, b: CodePoints): boolean {
  return a.ranges.join() === b.ranges.join();
}
