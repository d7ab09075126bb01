/**
 * Languages of scalars (strings, numbers, names) as automata, whatever they come from.
 *
 * An Automaton is deterministic and may be endless in principle: states come up as they are asked
 * for. dfa.ts makes a finite, minimal one of a conjunction of them. Implemented by the regex, the
 * number, the text-set and the length automata.
 */
import { CodePoints } from './code-points.js';

export interface Automaton {
  /** Characters that no set of these tells apart lead to the same states. */
  readonly sets: readonly CodePoints[];
  readonly start: number;
  /** DEAD: nothing that begins so is in the language. */
  next(state: number, codePoint: number): number;
  accepts(state: number): boolean;
}

export const DEAD = -1;

/** Exactly these texts. */
export class TextSet implements Automaton {
  readonly sets: readonly CodePoints[];
  readonly start = 0;
  private readonly children: Map<number, number>[] = [new Map()];
  private readonly ends = new Set<number>();

  constructor(texts: Iterable<string>) {
    const seen = new Set<number>();
    for (const text of texts) {
      let state = this.start;
      for (const char of text) {
        const codePoint = char.codePointAt(0)!;
        seen.add(codePoint);
        let next = this.children[state]!.get(codePoint);
        if (next === undefined) {
          next = this.children.push(new Map()) - 1;
          this.children[state]!.set(codePoint, next);
        }
        state = next;
      }
      this.ends.add(state);
    }
    this.sets = [...seen].map((codePoint) => CodePoints.single(codePoint));
  }

  next(state: number, codePoint: number): number {
    return this.children[state]?.get(codePoint) ?? DEAD;
  }

  accepts(state: number): boolean {
    return this.ends.has(state);
  }
}

/** Texts of so many code points. A state is how many there were, as far as that matters. */
export class LengthRange implements Automaton {
  readonly sets = [];
  readonly start = 0;

  constructor(
    private readonly min: number,
    private readonly max: number,
  ) {}

  next(state: number): number {
    if (state >= this.max) return DEAD;
    return this.max === Infinity ? Math.min(state + 1, this.min) : state + 1;
  }

  accepts(state: number): boolean {
    return state >= this.min;
  }
}
