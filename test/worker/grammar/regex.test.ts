/** Patterns as automata and as grammars, against JavaScript's own engine on random texts. */
import { describe, expect, it } from 'vitest';
import { constraintGrammar } from '../../../worker/grammar/constraint-grammar.js';
import { conjunction, type Dfa } from '../../../worker/grammar/dfa.js';
import { matchAnywhere, wholeMatch } from '../../../worker/grammar/regex-automaton.js';
import { Work } from '../../../worker/grammar/work.js';
import { Random } from '../random.js';
import { GbnfMachine } from './gbnf-machine.js';

const place = { keyword: 'pattern', pointer: '#' };

function dfaOf(pattern: string, how: typeof wholeMatch): Promise<Dfa> {
  const work = new Work();
  return conjunction([{ automaton: how(pattern, work, place) }], work, place);
}

/** Texts of the pattern's own letters, so that many match. */
function randomText(random: Random, letters: string): string {
  const chars = [...letters];
  return Array.from({ length: random.below(9) }, () => random.pick(chars)).join('');
}

const PATTERNS: [pattern: string, letters: string][] = [
  ['', 'ab'],
  ['a', 'ab'],
  ['^a', 'ab'],
  ['a$', 'ab'],
  ['^a$', 'ab'],
  ['^$', 'a'],
  ['a|b|', 'abc'],
  ['^(?:a|bc)*$', 'abc'],
  ['^a{2}$', 'ab'],
  ['^a{2,}b{0,2}$', 'ab'],
  ['^(a?b+?)*?$', 'ab'],
  ['^(a{1,2}){2,3}$', 'a'],
  ['^(?:)+a$', 'ab'],
  ['^[^ab]$', 'abc\n'],
  ['^[]$', 'a'],
  ['^[^]$', 'a\n'],
  ['^.$', 'a\n\r\u2028😀'],
  ['^[a\\-c-]+$', 'abc-'],
  ['^[\\d_]\\D\\w\\W$', 'a1_ -'],
  ['^\\s\\S$', 'a \t\u00a0\ufeff'],
  ['^[\\s\\S]{2}$', 'a \n'],
  ['^\\t\\n\\v\\f\\r\\0\\x41\\u0042\\u{43}\\cJ$', 'a'],
  ['^\\ud83d\\ude00+$', '😀a'],
  ['^[\\u{1F600}-\\u{1F602}]$', '😀😁😂😃'],
  ['^\\p{Lu}\\P{Lu}$', 'aAÄä'],
  ['^[\\p{Script=Greek}\\d]+$', 'αβ1a'],
  ['^\\$\\.\\*\\/\\\\\\[$', '$.*/\\['],
  ['^(?<year>\\d)(?:x)$', '1x'],
  ['\\bab\\b', 'ab '],
  ['a\\Bb', 'ab '],
  ['\\B', 'a '],
  ['^\\b', 'a '],
  ['\\b$', 'a '],
  ['^(?=a)', 'ab'],
  ['^(?=.*b)(?=.*a)[ab]{2,4}$', 'abc'],
  ['^(?!.*aa)[ab]*$', 'ab'],
  ['(?!a)b', 'ab'],
  ['^(?:(?!ab)[ab])*$', 'ab'],
  ['(?<=a)b', 'ab'],
  ['(?<!a)b$', 'ab'],
  ['^(?:a(?<=aa)|b)*$', 'ab'],
  ['(?<=^a|b)c', 'abc'],
  ['(?<!^)a', 'ab'],
  ['a(?=b(?!c))', 'abc'],
  ['(?=a\\b)', 'ab '],
  ['(?!\\ba)a', 'ab '],
  ['(?=^a)a', 'ab'],
  ['^(?=(?:aa)*$)(?=(?:aaa)*$)', 'a'],
  ['^(?!(?:aa)+$)a+$', 'a'],
  ['(?:^|,)a(?:,|$)', 'a,b'],
  ['^a|b$', 'abc'],
  ['a(?:$|b)c?', 'abc'],
  ['^(?:a$)?b?', 'ab'],
  ['x*', 'xy'],
  ['(a|ab)(c|bcd)$', 'abcd'],
  ['^(?:(?:a|b){2}|(?:b|c){3})$', 'abc'],
];

describe('a pattern', () => {
  it.each(PATTERNS)('%j means what RegExp says', async (pattern, letters) => {
    const anywhere = await dfaOf(pattern, matchAnywhere);
    const whole = await dfaOf(pattern, wholeMatch);
    const found = new RegExp(pattern, 'u');
    const all = new RegExp(`^(?:${pattern})$`, 'u');
    const random = new Random(pattern.length);
    for (let i = 0; i < 400; i++) {
      const text = randomText(random, `${letters}x`);
      expect(anywhere.matches(text), JSON.stringify(text)).toBe(found.test(text));
      expect(whole.matches(text), JSON.stringify(text)).toBe(all.test(text));
    }
  });

  it('at random means what RegExp says', async () => {
    const random = new Random(20261129);
    for (let i = 0; i < 400; i++) {
      const pattern = randomPattern(random, 3);
      const dfa = await dfaOf(pattern, matchAnywhere);
      const found = new RegExp(pattern, 'u');
      for (let j = 0; j < 60; j++) {
        const text = randomText(random, 'ab -');
        expect(dfa.matches(text), `${pattern} on ${JSON.stringify(text)}`).toBe(found.test(text));
      }
    }
  });
});

function randomPattern(random: Random, depth: number): string {
  const inner = () => randomPattern(random, depth - 1);
  if (depth === 0) {
    return random.pick(['a', 'b', '-', '.', '[ab]', '[^a]', '\\w', '\\b', '\\B', '^', '$', '']);
  }
  const roll = random.below(9);
  if (roll < 3) return inner() + inner();
  if (roll === 3) return `(?:${inner()}|${inner()})`;
  if (roll < 6) return `(?:${inner()})${random.pick(['*', '+', '?', '{2}', '{1,3}'])}`;
  if (roll === 6) return `(?${random.pick(['=', '!'])}${inner()})`;
  if (roll === 7) return `(?<${random.pick(['=', '!'])}${random.pick(['a', 'ab', '^b', '\\w'])})`;
  return inner();
}

describe('a regex constraint', () => {
  it.each([
    ['[a-z]+@[a-z]+\\.(?:com|org)', ['a@b.com', 'x@y.org'], ['a@b', '@b.com', 'a@b.com ']],
    ['\\d{4}-\\d\\d', ['2024-01'], ['2024-1', 'x2024-01']],
    ['yes|no', ['yes', 'no'], ['y', 'yesno', '']],
    ['a*', ['', 'aaa'], ['b']],
    ['["\\n😀]+', ['"\n😀'], ['x']],
    ['^x$', ['x'], ['xx']],
  ])('%j matches from the first to the last character', async (pattern, yes, no) => {
    const text = await constraintGrammar({ type: 'regex', pattern });
    const machine = new GbnfMachine(text);
    for (const each of yes) expect(machine.matches(each), each).toBe(true);
    for (const each of no) expect(machine.matches(each), each).toBe(false);
    const random = new Random(1);
    const all = new RegExp(`^(?:${pattern})$`, 'u');
    for (let i = 0; i < 50; i++) {
      const sample = machine.sample(() => random.next(), 12);
      expect(all.test(sample), sample).toBe(true);
    }
  });

  it.each([
    ['(', 'CONSTRAINT_INVALID', /no ECMAScript pattern/],
    ['a\\', 'CONSTRAINT_INVALID', /no ECMAScript pattern/],
    ['a(?!)', 'CONSTRAINT_INVALID', /matched by no text/],
    ['a\\bb', 'CONSTRAINT_INVALID', /matched by no text/],
    ['(a)\\1', 'CONSTRAINT_UNSUPPORTED', /backreference/],
    ['(?<n>a)\\k<n>', 'CONSTRAINT_UNSUPPORTED', /backreference/],
    ['(?<=a(?=b))c', 'CONSTRAINT_UNSUPPORTED', /looks ahead/],
    [`${'('.repeat(150)}a${')'.repeat(150)}`, 'CONSTRAINT_UNSUPPORTED', /nests too deeply/],
    ['(?:a{1000}){1000}', 'CONSTRAINT_UNSUPPORTED', /repeats too much/],
    ['(?:(?:a|b)*a(?:a|b){30})', 'CONSTRAINT_UNSUPPORTED', /too (much work|many states)/],
  ])('%j is refused', async (pattern, code, message) => {
    const refused = constraintGrammar({ type: 'regex', pattern });
    await expect(refused).rejects.toMatchObject({
      ...{ code, message: expect.stringMatching(message) as string },
      data: { keyword: 'pattern', pointer: 'constraint.pattern' },
    });
  });
});

describe('choices', () => {
  it('are matched whole, whatever they begin with alike', async () => {
    const choices = ['yes', 'yes, please', 'no', '"quoted"\n', 'naïve 😀', 'y'];
    const machine = new GbnfMachine(await constraintGrammar({ type: 'choice', choices }));
    for (const choice of choices) expect(machine.matches(choice), choice).toBe(true);
    for (const other of ['ye', 'yes,', 'noo', '', 'naïve']) {
      expect(machine.matches(other), other).toBe(false);
    }
  });

  it('by the thousand make no large grammar', async () => {
    const choices = Array.from({ length: 3000 }, (_, i) => `item ${i}`);
    const text = await constraintGrammar({ type: 'choice', choices });
    expect(text.length).toBeLessThan(2000);
    const machine = new GbnfMachine(text);
    expect(machine.matches('item 2999')).toBe(true);
    expect(machine.matches('item 3000')).toBe(false);
  });
});
