/**
 * A pattern's tree as instructions, in the manner of Thompson's machine, with looks.
 *
 * A lookbehind (so `^` and half of `\b`) is a tracker: an automaton that reads the text from its
 * start beside the pattern and says where its body has just ended. A lookahead is an entry of its
 * own into the same instructions. Run by regex-automaton.ts.
 */
import { CodePoints } from './code-points.js';
import { unsupported, type Place } from './faults.js';
import type { RegexNode } from './regex-parser.js';

export type Instruction =
  | { op: 'set'; set: CodePoints; next: number }
  | { op: 'split'; targets: number[] }
  /** `index`: of trackers or of aheads. */
  | { op: 'behind' | 'ahead'; index: number; negated: boolean; next: number }
  | { op: 'match' };

export interface Program {
  instructions: Instruction[];
  entry: number;
  /** What each tracker reads: any text that ends with its body. */
  trackers: RegexNode[];
  /** Where each lookahead's body begins. */
  aheads: number[];
}

const MAX_INSTRUCTIONS = 50_000;

const ANYTHING: RegexNode = {
  kind: 'repeat',
  item: { kind: 'set', set: CodePoints.all },
  ...{ min: 0, max: Infinity },
};

/** What a text holds somewhere, as JSON Schema's `pattern` asks. */
export function anywhere(body: RegexNode): RegexNode {
  return { kind: 'sequence', items: [ANYTHING, body, ANYTHING] };
}

export function compileProgram(root: RegexNode, place: Place): Program {
  const compiler = new Compiler(place);
  const entry = compiler.compile(root, compiler.add({ op: 'match' }));
  return { ...compiler.program, entry };
}

class Compiler {
  readonly program: Omit<Program, 'entry'> = { instructions: [], trackers: [], aheads: [] };
  /** Bodies by identity: `^` is one tracker however often it stands. */
  private readonly trackerOf = new Map<RegexNode, number>();
  private readonly aheadOf = new Map<RegexNode, number>();

  constructor(private readonly place: Place) {}

  add(instruction: Instruction): number {
    const { instructions } = this.program;
    if (instructions.length >= MAX_INSTRUCTIONS) {
      throw unsupported(this.place, 'repeats too much to become a grammar.');
    }
    return instructions.push(instruction) - 1;
  }

  /** `next`: where to go on after `node`. Returns where to begin. */
  compile(node: RegexNode, next: number): number {
    switch (node.kind) {
      case 'set':
        return this.add({ op: 'set', set: node.set, next });
      case 'sequence':
        return node.items.reduceRight((after, item) => this.compile(item, after), next);
      case 'alternatives': {
        const targets = node.options.map((option) => this.compile(option, next));
        return this.add({ op: 'split', targets });
      }
      case 'repeat':
        return this.repeat(node.item, node.min, node.max, next);
      case 'look': {
        const { ahead, negated, body } = node;
        const index = ahead ? this.ahead(body) : this.tracker(body);
        return this.add({ op: ahead ? 'ahead' : 'behind', index, negated, next });
      }
    }
  }

  private repeat(item: RegexNode, min: number, max: number, next: number): number {
    let entry = next;
    if (max === Infinity) {
      const targets: number[] = [];
      entry = this.add({ op: 'split', targets });
      targets.push(this.compile(item, entry), next);
    } else {
      for (let i = min; i < max; i++) {
        const target = this.compile(item, entry);
        entry = this.add({ op: 'split', targets: [target, next] });
      }
    }
    for (let i = 0; i < min; i++) entry = this.compile(item, entry);
    return entry;
  }

  private ahead(body: RegexNode): number {
    const known = this.aheadOf.get(body);
    if (known !== undefined) return known;
    const begin = this.compile(body, this.add({ op: 'match' }));
    const index = this.program.aheads.push(begin) - 1;
    this.aheadOf.set(body, index);
    return index;
  }

  private tracker(body: RegexNode): number {
    const known = this.trackerOf.get(body);
    if (known !== undefined) return known;
    if (looksAhead(body)) {
      throw unsupported(this.place, 'looks ahead (or for $) inside a lookbehind.');
    }
    const index = this.program.trackers.push({ kind: 'sequence', items: [ANYTHING, body] }) - 1;
    this.trackerOf.set(body, index);
    return index;
  }
}

function looksAhead(node: RegexNode): boolean {
  switch (node.kind) {
    case 'set':
      return false;
    case 'sequence':
      return node.items.some(looksAhead);
    case 'alternatives':
      return node.options.some(looksAhead);
    case 'repeat':
      return looksAhead(node.item);
    case 'look':
      return node.ahead || looksAhead(node.body);
  }
}
