/**
 * GBNF text read back, naively: what tests hold the generated grammars against. Shares nothing with
 * worker/grammar/, whose output it reads. Throws for anything outside of the dialect.
 */

export type GbnfNode =
  | { kind: 'text'; chars: number[] }
  | { kind: 'set'; negated: boolean; ranges: [number, number][] }
  | { kind: 'sequence'; items: GbnfNode[] }
  | { kind: 'alternatives'; options: GbnfNode[] }
  | { kind: 'repeat'; item: GbnfNode; min: number; max: number }
  | { kind: 'rule'; name: string };

export function parseGbnf(text: string): Map<string, GbnfNode> {
  const rules = new Map<string, GbnfNode>();
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    const [, name, body] = /^([a-zA-Z][a-zA-Z0-9-]*) ::= (.*)$/.exec(line) ?? [];
    if (name === undefined) throw new Error(`no rule: ${line}`);
    if (rules.has(name)) throw new Error(`rule ${name} twice`);
    rules.set(name, new LineParser(body ?? '').parse());
  }
  return rules;
}

class LineParser {
  private at = 0;

  constructor(private readonly line: string) {}

  parse(): GbnfNode {
    const node = this.alternatives();
    if (this.at < this.line.length) throw this.fault();
    return node;
  }

  private fault(): Error {
    return new Error(`cannot read ${this.line.slice(this.at, this.at + 40)} in ${this.line}`);
  }

  private match(pattern: RegExp): string | undefined {
    const sticky = new RegExp(pattern.source, `${pattern.flags}y`);
    sticky.lastIndex = this.at;
    const [found] = sticky.exec(this.line) ?? [];
    if (found !== undefined) this.at += found.length;
    return found;
  }

  private alternatives(): GbnfNode {
    const options = [this.sequence()];
    while (this.match(/ *\| */)) options.push(this.sequence());
    return options.length === 1 ? options[0]! : { kind: 'alternatives', options };
  }

  private sequence(): GbnfNode {
    const items: GbnfNode[] = [];
    for (;;) {
      this.match(/ */);
      if (this.at === this.line.length || '|)'.includes(this.line[this.at]!)) break;
      items.push(this.repeated(this.item()));
    }
    return { kind: 'sequence', items };
  }

  private item(): GbnfNode {
    if (this.match(/"/)) {
      const chars: number[] = [];
      while (!this.match(/"/)) chars.push(this.character());
      return { kind: 'text', chars };
    }
    if (this.match(/\[/)) return this.set();
    if (this.match(/\./)) return { kind: 'set', negated: true, ranges: [] };
    if (this.match(/\(/)) {
      const inside = this.alternatives();
      if (!this.match(/\)/)) throw this.fault();
      return inside;
    }
    const name = this.match(/[a-zA-Z][a-zA-Z0-9-]*/);
    if (name === undefined) throw this.fault();
    return { kind: 'rule', name };
  }

  private set(): GbnfNode {
    const negated = this.match(/\^/) !== undefined;
    const ranges: [number, number][] = [];
    while (!this.match(/\]/)) {
      const first = this.character();
      const last = this.match(/-/) ? this.character() : first;
      if (last < first) throw this.fault();
      ranges.push([first, last]);
    }
    if (ranges.length === 0) throw this.fault();
    return { kind: 'set', negated, ranges };
  }

  private character(): number {
    const escape = this.match(/\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt"\\\]])/);
    if (escape === undefined) {
      const char = this.match(/[^\\]/u);
      if (char === undefined) throw this.fault();
      return char.codePointAt(0)!;
    }
    if (/[xuU]/.test(escape[1]!)) return parseInt(escape.slice(2), 16);
    const named = { n: 10, r: 13, t: 9 }[escape[1]!];
    return named ?? escape.charCodeAt(1);
  }

  private repeated(item: GbnfNode): GbnfNode {
    const mark = this.match(/[*+?]|\{\d+(,\d*)?\}/);
    if (mark === undefined) return item;
    const [min, max] = { '*': [0, Infinity], '+': [1, Infinity], '?': [0, 1] }[mark] ?? [];
    if (min !== undefined && max !== undefined) return { kind: 'repeat', item, min, max };
    const [least = '', most] = mark.slice(1, -1).split(',');
    const upTo = most === undefined ? Number(least) : most === '' ? Infinity : Number(most);
    return { kind: 'repeat', item, min: Number(least), max: upTo };
  }
}
