/**
 * A regex as an Automaton: the set of all places where a match may stand, character by character.
 *
 * A thread is an instruction and the lookaheads it has promised to fulfil; a state is a set of
 * threads and the trackers' states. A lookahead is an automaton of this kind too, begun where it
 * stands with the trackers as they are there; it accepts every text that begins as its body says.
 */
import { DEAD, type Automaton } from './automaton.js';
import type { CodePoints } from './code-points.js';
import type { Place } from './faults.js';
import { parseRegex } from './regex-parser.js';
import { anywhere, compileProgram, type Instruction, type Program } from './regex-program.js';
import type { Work } from './work.js';

/** A lookahead under way: `ahead` must accept what follows, or must not. */
interface Promised {
  ahead: number;
  state: number;
  negated: boolean;
}

interface Thread {
  at: number;
  promised: Promised[];
}

interface State {
  trackers: number[];
  threads: Thread[];
}

/** Of a lookahead: its body has matched, whatever follows. */
const FULFILLED = 0;

/** What the automata of one regex have in common. */
class Machine {
  readonly trackers: RegexAutomaton[];
  /** By lookahead and the trackers' states at its begin. */
  readonly aheads: RegexAutomaton[] = [];
  readonly sets: readonly CodePoints[];
  private readonly aheadIndex = new Map<string, number>();

  constructor(
    readonly program: Program,
    readonly work: Work,
    readonly place: Place,
  ) {
    this.trackers = program.trackers.map((body) => {
      const machine = new Machine(compileProgram(body, place), work, place);
      return new RegexAutomaton(machine);
    });
    const own = program.instructions.flatMap((it) => (it.op === 'set' ? [it.set] : []));
    this.sets = [...new Set([...own, ...this.trackers.flatMap(({ sets }) => sets)])];
  }

  ahead(index: number, trackers: number[]): number {
    const key = `${index}:${trackers.join(',')}`;
    const known = this.aheadIndex.get(key);
    if (known !== undefined) return known;
    const begun = new RegexAutomaton(this, { entry: this.program.aheads[index]!, trackers });
    const at = this.aheads.push(begun) - 1;
    this.aheadIndex.set(key, at);
    return at;
  }
}

class RegexAutomaton implements Automaton {
  readonly sets: readonly CodePoints[];
  readonly start: number;
  private readonly states: State[] = [];
  private readonly index = new Map<string, number>();
  /** By state and character: others ask for the same again and again. */
  private readonly steps = new Map<number, number>();

  /** `begin`: of a lookahead. */
  constructor(
    private readonly machine: Machine,
    private readonly begin?: { entry: number; trackers: number[] },
  ) {
    this.sets = machine.sets;
    if (begin !== undefined) this.intern({ trackers: [], threads: [] }); // FULFILLED
    const trackers = begin?.trackers ?? machine.trackers.map((tracker) => tracker.start);
    const entry = begin?.entry ?? machine.program.entry;
    this.start = this.close([{ at: entry, promised: [] }], trackers);
  }

  next(state: number, codePoint: number): number {
    if (this.begin !== undefined && state === FULFILLED) return FULFILLED;
    const key = state * 0x110000 + codePoint;
    const known = this.steps.get(key);
    if (known !== undefined) return known;
    const next = this.step(state, codePoint);
    this.steps.set(key, next);
    return next;
  }

  private step(state: number, codePoint: number): number {
    const { trackers, threads } = this.states[state]!;
    const moved: Thread[] = [];
    for (const thread of threads) {
      const instruction = this.instruction(thread.at);
      if (instruction.op === 'set' && instruction.set.has(codePoint)) {
        this.move(thread, instruction.next, codePoint, moved);
      } else if (instruction.op === 'match' && this.begin !== undefined) {
        this.move(thread, thread.at, codePoint, moved);
      }
    }
    const { machine } = this;
    machine.work.spend(threads.length + 1, machine.place);
    const seen = trackers.map((tracker, i) => machine.trackers[i]!.next(tracker, codePoint));
    return this.close(moved, seen);
  }

  accepts(state: number): boolean {
    if (this.begin !== undefined && state === FULFILLED) return true;
    return this.states[state]!.threads.some(
      ({ at, promised }) =>
        this.instruction(at).op === 'match' &&
        promised.every((it) => this.machine.aheads[it.ahead]!.accepts(it.state) !== it.negated),
    );
  }

  private instruction(at: number): Instruction {
    return this.machine.program.instructions[at]!;
  }

  private move({ promised }: Thread, at: number, codePoint: number, to: Thread[]): void {
    const still: Promised[] = [];
    for (const each of promised) {
      const state = this.machine.aheads[each.ahead]!.next(each.state, codePoint);
      if (state === DEAD || state === FULFILLED) {
        if ((state === DEAD) !== each.negated) return;
      } else {
        still.push({ ...each, state });
      }
    }
    to.push({ at, promised: still });
  }

  /** Follows everything that reads nothing; returns the state that this makes. */
  private close(begun: Thread[], trackers: number[]): number {
    const { machine } = this;
    const threads = new Map<string, Thread>();
    const visited = new Set<string>();
    const stack = [...begun];
    for (let thread = stack.pop(); thread !== undefined; thread = stack.pop()) {
      const key = threadKey(thread);
      if (visited.has(key)) continue;
      visited.add(key);
      machine.work.spend(1, machine.place);
      const { at, promised } = thread;
      const instruction = this.instruction(at);
      switch (instruction.op) {
        case 'split':
          for (const target of instruction.targets) stack.push({ at: target, promised });
          break;
        case 'behind': {
          const tracker = machine.trackers[instruction.index]!;
          if (tracker.accepts(trackers[instruction.index]!) !== instruction.negated) {
            stack.push({ at: instruction.next, promised });
          }
          break;
        }
        case 'ahead': {
          const more = this.promise(instruction.index, instruction.negated, trackers);
          if (more !== null) stack.push({ at: instruction.next, promised: joined(promised, more) });
          break;
        }
        case 'match':
          if (this.begin !== undefined && promised.length === 0) return FULFILLED;
          threads.set(key, thread);
          break;
        case 'set':
          threads.set(key, thread);
          break;
      }
    }
    if (threads.size === 0) return DEAD;
    const keys = [...threads.keys()].sort();
    return this.intern({ trackers, threads: keys.map((key) => threads.get(key)!) }, keys);
  }

  /** What a lookahead asks of a thread here: nothing, a promise, or (null) what cannot be. */
  private promise(index: number, negated: boolean, trackers: number[]): Promised[] | null {
    const ahead = this.machine.ahead(index, trackers);
    const state = this.machine.aheads[ahead]!.start;
    if (state === DEAD || state === FULFILLED) return (state === DEAD) === negated ? [] : null;
    return [{ ahead, state, negated }];
  }

  private intern(state: State, keys: string[] = []): number {
    const key = `${state.trackers.join(',')}|${keys.join(';')}`;
    const known = this.index.get(key);
    if (known !== undefined) return known;
    const at = this.states.push(state) - 1;
    this.index.set(key, at);
    return at;
  }
}

function promiseKey({ ahead, state, negated }: Promised): string {
  return `${negated ? '!' : ''}${ahead}.${state}`;
}

function threadKey({ at, promised }: Thread): string {
  return promised.length === 0 ? `${at}` : `${at}:${promised.map(promiseKey).sort().join(',')}`;
}

function joined(promised: Promised[], more: Promised[]): Promised[] {
  const all = new Map([...promised, ...more].map((each) => [promiseKey(each), each]));
  return [...all.values()];
}

function automatonOf(pattern: string, whole: boolean, work: Work, place: Place): RegexAutomaton {
  const node = parseRegex(pattern, place);
  const program = compileProgram(whole ? node : anywhere(node), place);
  return new RegexAutomaton(new Machine(program, work, place));
}

/** Texts that the pattern matches from their first character to their last. */
export function wholeMatch(pattern: string, work: Work, place: Place): Automaton {
  return automatonOf(pattern, true, work, place);
}

/** Texts in which the pattern matches somewhere. */
export function matchAnywhere(pattern: string, work: Work, place: Place): Automaton {
  return automatonOf(pattern, false, work, place);
}
