/**
 * Runs a GBNF grammar over characters: does it match a text, and what does it match at random?
 *
 * A place is a list of nodes still to be matched; equal lists are one object, so that sets of places
 * stay small also for recursive rules. Slow and plain.
 */
import { parseGbnf, type GbnfNode } from './gbnf-syntax.js';

interface Place {
  id: number;
  node: GbnfNode;
  /** Of a text: characters matched; of a repeat: items matched. */
  count: number;
  next: Place | null;
  /** Fewest characters from here to the end. */
  shortest: number;
}

/** One character that may come: what it may be, and what is left then. */
interface Choice {
  has(codePoint: number): boolean;
  sample(random: () => number): number;
  then: Place | null;
}

const isScalar = (c: number) => c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

export class GbnfMachine {
  private readonly rules: Map<string, GbnfNode>;
  private readonly ids = new Map<GbnfNode, number>();
  private readonly places = new Map<string, Place>();
  private readonly shortest = new Map<GbnfNode, number>();

  constructor(text: string) {
    this.rules = parseGbnf(text);
    if (!this.rules.has('root')) throw new Error('no root');
    this.measure();
  }

  matches(text: string): boolean {
    let { choices, ends } = this.open([this.root()]);
    for (const char of text) {
      const codePoint = char.codePointAt(0)!;
      const next = choices.filter((choice) => choice.has(codePoint)).map(({ then }) => then);
      if (next.length === 0) return false;
      ({ choices, ends } = this.open(next));
    }
    return ends;
  }

  /** A text that matches, of about `length` characters where that is possible. */
  sample(random: () => number, length: number): string {
    let text = '';
    let at: (Place | null)[] = [this.root()];
    for (let left = length; ; left--) {
      const { choices, ends } = this.open(at);
      const cost = ({ then }: Choice) => 1 + (then?.shortest ?? 0);
      const best = Math.min(...choices.map(cost));
      const fitting = choices.filter((choice) => cost(choice) <= Math.max(left, best));
      if (ends && (fitting.length === 0 || left <= 0 || random() < 0.2)) return text;
      const chosen = fitting[Math.floor(random() * fitting.length)]!;
      const codePoint = chosen.sample(random);
      text += String.fromCodePoint(codePoint);
      at = choices.filter((choice) => choice.has(codePoint)).map(({ then }) => then);
      // Follow one reading only: the closing plan was made for it.
      if (left < 20) at = [chosen.then];
    }
  }

  private root(): Place {
    return this.place({ kind: 'rule', name: 'root' }, 0, null);
  }

  private place(node: GbnfNode, count: number, next: Place | null): Place {
    const nodeKey = node.kind === 'rule' ? node.name : this.idOf(node);
    const key = `${nodeKey}:${count}:${next?.id ?? -1}`;
    let place = this.places.get(key);
    if (place === undefined) {
      const own = this.cost(node, count);
      const shortest = own + (next?.shortest ?? 0);
      place = { id: this.places.size, node, count, next, shortest };
      this.places.set(key, place);
    }
    return place;
  }

  private idOf(node: GbnfNode): number {
    const id = this.ids.get(node) ?? this.ids.size;
    this.ids.set(node, id);
    return id;
  }

  private open(places: (Place | null)[]): { choices: Choice[]; ends: boolean } {
    const choices: Choice[] = [];
    let ends = false;
    const seen = new Set<Place>();
    const stack = [...places];
    while (stack.length > 0) {
      const place = stack.pop()!;
      if (place === null) {
        ends = true;
        continue;
      }
      if (seen.has(place)) continue;
      seen.add(place);
      const { node, count, next } = place;
      switch (node.kind) {
        case 'text': {
          const char = node.chars[count];
          if (char === undefined) stack.push(next);
          else choices.push(single(char, this.place(node, count + 1, next)));
          break;
        }
        case 'set':
          choices.push(ofSet(node, next));
          break;
        case 'sequence':
          stack.push(node.items.reduceRight((after, item) => this.place(item, 0, after), next));
          break;
        case 'alternatives':
          for (const option of node.options) stack.push(this.place(option, 0, next));
          break;
        case 'repeat': {
          const again = Math.min(count + 1, node.max === Infinity ? node.min : node.max);
          if (count >= node.min) stack.push(next);
          if (count < node.max) {
            stack.push(this.place(node.item, 0, this.place(node, again, next)));
          }
          break;
        }
        case 'rule':
          stack.push(this.place(this.rules.get(node.name)!, 0, next));
          break;
      }
    }
    return { choices, ends };
  }

  /** Fewest characters of every node, by iteration to the fixed point. */
  private measure(): void {
    const nodes: GbnfNode[] = [];
    const gather = (node: GbnfNode): void => {
      if (node.kind === 'sequence') node.items.forEach(gather);
      if (node.kind === 'alternatives') node.options.forEach(gather);
      if (node.kind === 'repeat') gather(node.item);
      if (node.kind === 'rule' && !this.rules.has(node.name)) throw new Error(`no ${node.name}`);
      nodes.push(node);
    };
    this.rules.forEach(gather);
    for (let changed = true; changed;) {
      changed = false;
      for (const node of nodes.reverse()) {
        const cost = this.cost(node, 0);
        if (cost === (this.shortest.get(node) ?? Infinity)) continue;
        this.shortest.set(node, cost);
        changed = true;
      }
    }
    for (const [name, node] of this.rules) {
      if (this.shortest.get(node) === undefined) throw new Error(`${name} matches nothing`);
    }
  }

  private cost(node: GbnfNode, count: number): number {
    const of = (each: GbnfNode) => this.shortest.get(each) ?? Infinity;
    switch (node.kind) {
      case 'text':
        return node.chars.length - count;
      case 'set':
        return 1;
      case 'sequence':
        return node.items.reduce((sum, item) => sum + of(item), 0);
      case 'alternatives':
        return Math.min(...node.options.map(of));
      case 'repeat':
        return node.min <= count ? 0 : (node.min - count) * of(node.item);
      case 'rule':
        return of(this.rules.get(node.name)!);
    }
  }
}

function single(codePoint: number, then: Place): Choice {
  return { has: (other) => other === codePoint, sample: () => codePoint, then };
}

function ofSet(node: GbnfNode & { kind: 'set' }, then: Place | null): Choice {
  const inside = (c: number) => node.ranges.some(([first, last]) => c >= first && c <= last);
  const has = (c: number) => isScalar(c) && inside(c) !== node.negated;
  const sample = (random: () => number): number => {
    const any = (first: number, last: number) => first + Math.floor(random() * (last - first + 1));
    for (;;) {
      const range = node.ranges[any(0, node.ranges.length - 1)];
      const anywhere = random() < 0.8 ? any(0x20, 0x7e) : any(0, random() < 0.5 ? 0x3ff : 0x10ffff);
      const codePoint = node.negated || range === undefined ? anywhere : any(...range);
      if (has(codePoint)) return codePoint;
    }
  };
  return { has, sample, then };
}
