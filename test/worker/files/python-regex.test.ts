// The expected answers are those of Python 3.11's `re` for the same pattern and names.
import { describe, expect, test } from 'vitest';

import {
  PythonRegexError,
  firstMatches,
  fullMatches,
  translate,
} from '../../../worker/files/python-regex.js';

const NAMES = [
  'model.layers.0.self_attn.q_proj',
  'model.layers.1.self_attn.v_proj',
  'model.layers.12.mlp.down_proj',
  'lm_head',
];
const matches = (pattern: string) => NAMES.filter((_, i) => fullMatches(pattern, NAMES)[i]);
const [Q0, V1, DOWN12, HEAD] = NAMES as [string, string, string, string];

test.each<[string, string[]]>([
  [String.raw`.*\.(q|v)_proj`, [Q0, V1]],
  // The whole name, with backtracking into the alternatives.
  ['lm|lm_head', [HEAD]],
  ['lm', []],
  [String.raw`(?i).*\.Q_PROJ`, [Q0]],
  [String.raw`(?P<block>model)\.layers\.(?P<n>\d+)\.mlp\..*`, [DOWN12]],
  [String.raw`model\.layers\.(?P<d>\d)(?P=d)?\..*`, [Q0, V1]],
  [String.raw`model\.layers\.(\d)2\..*`, [DOWN12]],
  [String.raw`\Amodel.*proj\Z`, [Q0, V1, DOWN12]],
  [String.raw`^model.*proj$`, [Q0, V1, DOWN12]],
  [String.raw`model\.layers\.[]0].*`, [Q0]],
  [String.raw`model\.layers\.[^]0[]+.*`, [V1, DOWN12]],
  [String.raw`model\.layers\.\d{,1}\..*`, [Q0, V1]],
  [String.raw`model\.layers\.\d{2,}\..*`, [DOWN12]],
  [String.raw`(?x) model \. layers \. 1 \. .*   # only one`, [V1]],
  [String.raw`model(?#the root)\.layers\.1\..*`, [V1]],
  [String.raw`(?!.*mlp)model.*`, [Q0, V1]],
  [String.raw`.*(?<=q_)proj`, [Q0]],
  [
    String.raw`(?:.*?(?:self_attn|mlp).*?(?:q_proj|down_proj).*?)|(?:\blm_head\b)`,
    [Q0, DOWN12, HEAD],
  ],
  [String.raw`\x6c\u006d_head`, [HEAD]],
  [String.raw`(?im)LM_HEAD`, [HEAD]],
  ['', []],
])('%s', (pattern, expected) => {
  expect(matches(pattern)).toEqual(expected);
});

test('first match of several, anchored at the beginning only', () => {
  expect(firstMatches(['model', 'lm', '.*'], ['lm_head', 'model.x', 'x'])).toEqual([1, 0, 2]);
  expect(firstMatches(['m'], ['lm', 'ml'])).toEqual([-1, 0]);
  expect(firstMatches([], ['a'])).toEqual([-1]);
});

describe('what is refused', () => {
  const kind = (pattern: string) => {
    try {
      matches(pattern);
    } catch (error) {
      if (error instanceof PythonRegexError) return error.kind;
      throw error;
    }
    return 'nothing';
  };

  test.each([
    '(',
    '[abc',
    '*a',
    'a\\',
    '(?P<1>a)',
    'a(?i)b',
    'a{2,1}',
    '(?Pfoo)',
    '\\xZZ',
    '[\\Z]',
  ])('invalid: %s', (pattern) => expect(kind(pattern)).toBe('invalid'));

  test.each(['(?i:a)b', '(?>a)b', 'a++b', '(a)?(?(1)b|c)', '\\Qa', '\\p', 'a'.repeat(20_001)])(
    'not expressible: %s',
    (pattern) => expect(kind(pattern)).toBe('unsupported'),
  );

  // Python runs these for longer than anyone waits.
  test.each([
    String.raw`(.*\.)*(.*\.)*(.*\.)*(.*_)*(.*)*x`,
    String.raw`([\w.]+)+!`,
    '(a|.)+(.+)+Z',
  ])('too slow: %s', (pattern) => {
    const start = performance.now();
    expect(kind(pattern)).toBe('timeout');
    expect(performance.now() - start).toBeLessThan(5000);
  });

  test('a pattern is data: it cannot run code', () => {
    expect(kind('`;throw 1;`')).toBe('nothing');
    expect(kind('"+process.exit(3)+"')).toBe('nothing');
  });
});

test('a quantified escape is no possessive quantifier', () => {
  expect(translate(String.raw`a\++`)).toEqual({ source: String.raw`a\++`, flags: '' });
  expect(translate('[+]+').source).toBe('[+]+');
});
