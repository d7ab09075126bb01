/**
 * A finite automaton with a table: the conjunction of some automata and of others' complements.
 *
 * Always holds: it is minimal, and from every state a text of the language can still be reached, so
 * a language without texts has no states. Made by `conjunction`; read by dfa-rules.ts.
 */
import { DEAD, type Automaton } from './automaton.js';
import { CodePoints, partition, type Range } from './code-points.js';
import type { Edge, StateGraph } from './dfa-rules.js';
import { unsupported, type Place } from './faults.js';
import { minimalTable, type Table } from './minimize.js';
import type { Work } from './work.js';

const MAX_EXPLORED = 60_000;

export interface Part {
  automaton: Automaton;
  /** Its complement is meant. */
  negated?: boolean;
}

export class Dfa implements Automaton, StateGraph {
  readonly sets: readonly CodePoints[];
  readonly start: number;
  /** Sorted, to find a character's class. */
  private readonly ranges: { range: Range; class: number }[];

  constructor(private readonly table: Table & { classes: readonly CodePoints[] }) {
    this.sets = table.classes;
    this.start = table.numStates === 0 ? DEAD : 0;
    this.ranges = table.classes
      .flatMap(({ ranges }, index) => ranges.map((range) => ({ range, class: index })))
      .sort((a, b) => a.range[0] - b.range[0]);
  }

  get numStates(): number {
    return this.table.numStates;
  }

  get isEmpty(): boolean {
    return this.numStates === 0;
  }

  next(state: number, codePoint: number): number {
    const { numClasses, targets } = this.table;
    return state === DEAD ? DEAD : targets[state * numClasses + this.classOf(codePoint)]!;
  }

  accepts(state: number): boolean {
    return state !== DEAD && this.table.accepting[state] === 1;
  }

  matches(text: string): boolean {
    let state = this.start;
    for (const char of text) state = this.next(state, char.codePointAt(0)!);
    return this.accepts(state);
  }

  edges(state: number): Edge[] {
    const { numClasses, targets, classes } = this.table;
    const ranges = new Map<number, Range[]>();
    for (let index = 0; index < numClasses; index++) {
      const target = targets[state * numClasses + index]!;
      if (target === DEAD) continue;
      ranges.set(target, [...(ranges.get(target) ?? []), ...classes[index]!.ranges]);
    }
    return [...ranges].map(([target, each]) => ({ target, on: CodePoints.of(each) }));
  }

  private classOf(codePoint: number): number {
    let low = 0;
    let high = this.ranges.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.ranges[middle]!.range[0] <= codePoint) low = middle;
      else high = middle - 1;
    }
    return this.ranges[low]!.class;
  }
}

/** Texts in every part's language (out of it, where negated). */
export async function conjunction(parts: Part[], work: Work, place: Place): Promise<Dfa> {
  const sets = new Map<string, CodePoints>();
  for (const { automaton } of parts) {
    for (const set of automaton.sets) sets.set(set.ranges.join(), set);
  }
  work.spend(sets.size * sets.size, place);
  const classes = partition([...sets.values()]);
  const numClasses = classes.length;
  const samples = classes.map(({ ranges }) => ranges[0]![0]);

  const index = new Map<string, number>();
  const states: number[][] = [];
  const intern = (state: number[]): number => {
    const dead = state.some((each, i) => each === DEAD && parts[i]!.negated !== true);
    if (dead) return DEAD;
    const key = state.join();
    const known = index.get(key);
    if (known !== undefined) return known;
    index.set(key, states.length);
    return states.push(state) - 1;
  };
  intern(parts.map(({ automaton }) => automaton.start));

  const targets: number[] = [];
  const accepting: number[] = [];
  for (let at = 0; at < states.length; at++) {
    if (at > MAX_EXPLORED) throw unsupported(place, 'needs too many states to become a grammar.');
    const state = states[at]!;
    const accepts = ({ automaton }: Part, i: number) =>
      state[i] !== DEAD && automaton.accepts(state[i]!);
    accepting.push(parts.every((part, i) => accepts(part, i) !== (part.negated ?? false)) ? 1 : 0);
    for (const sample of samples) {
      const step = (each: number, i: number) =>
        each === DEAD ? DEAD : parts[i]!.automaton.next(each, sample);
      targets.push(intern(state.map(step)));
    }
    work.spend(numClasses, place);
    if (at % 8 === 0) await work.turn();
  }
  const explored = {
    ...{ numStates: states.length, numClasses },
    ...{ targets: Int32Array.from(targets), accepting: Uint8Array.from(accepting) },
  };
  work.spend(targets.length, place);
  return new Dfa({ ...minimalTable(explored), classes });
}
