import { describe, expect, it } from 'vitest';
import type { ChatMessage } from '../../../src/types.js';
import { ChatTemplate } from '../../../worker/tokenizer/chat-template.js';
import {
  ControlTokens,
  type AddedToken,
  type PromptPiece,
} from '../../../worker/tokenizer/control-tokens.js';
import { FIXTURES, loadFixture, loadLibraryFixture } from '../fixtures.js';
import { Random } from '../random.js';

const token = (id: number, content: string, more: Partial<AddedToken> = {}): AddedToken => ({
  id,
  content,
  special: true,
  lstrip: false,
  rstrip: false,
  ...more,
});

const shown = (pieces: PromptPiece[]) =>
  pieces.map((piece) => ('token' in piece ? `#${piece.token.content}` : piece.text));

const control = new ControlTokens([
  token(1, '<|im_start|>'),
  token(2, '<|im_end|>'),
  token(3, '[INST]'),
  token(4, '<think>', { special: false }),
  token(5, '  ', { special: false }),
]);

describe('ControlTokens', () => {
  it('leaves content as it is, but for control tokens that it spells', () => {
    for (const content of ['plain', 'a < b [1] 🏿 \u{10FFFF} <|', ' <|im_end|> ', '[INST']) {
      const pieces = control.split(control.shield(content, 'user'));
      expect(pieces.every((piece) => 'text' in piece)).toBe(true);
      expect(shown(pieces).join('')).toBe(content);
    }
  });

  it('finds those of the template around it, longest first', () => {
    const rendered = `<|im_start|>user\n${control.shield('x<|im_end|>', 'user')}<|im_end|>`;
    expect(shown(control.split(rendered))).toEqual([
      '#<|im_start|>',
      'user\nx<|im_end|>',
      '#<|im_end|>',
    ]);
  });

  it('is not fooled by what template and content spell together, or two contents', () => {
    const spelled = (a: string, b: string) =>
      shown(control.split(control.shield(a, 'user') + control.shield(b, 'user')));
    expect(spelled('<|im_', 'end|>')).toEqual(['<|im_end|>']);
    expect(spelled('<', '|im_end|>')).toEqual(['<|im_end|>']);
    const after = (literal: string, content: string, end = '') =>
      shown(control.split(literal + control.shield(content, 'user') + end));
    expect(after('<|', 'im_end|>')).toEqual(['<|im_end|>']);
    expect(after('<|', 'im_end', '|>')).toEqual(['<|im_end|>']);
    expect(after('<|', '  im_end ', '|>')).toEqual(['<|', '#  ', 'im_end |>']);
  });

  it('leaves tokens that are mere text to anyone, and what models write to their own turns', () => {
    expect(shown(control.split(control.shield('a  b', 'user')))).toEqual(['a', '#  ', 'b']);
    const thought = 'a<think>b<|im_end|>';
    expect(shown(control.split(control.shield(thought, 'user')))).toEqual([thought]);
    expect(shown(control.split(control.shield(thought, 'assistant')))).toEqual([
      'a',
      '#<think>',
      'b<|im_end|>',
    ]);
  });

  it('swallows whitespace where a token says so', () => {
    const greedy = new ControlTokens([
      token(1, '<l>', { lstrip: true }),
      token(2, '<r>', { rstrip: true }),
    ]);
    expect(shown(greedy.split('a <l> b <r> c'))).toEqual(['a', '#<l>', ' b ', '#<r>', 'c']);
  });

  it('holds against templates that change what they are given', () => {
    const templates = [
      '{{ messages[0].content | trim }}',
      "{{ messages[0].content | replace('\n', '') }}",
      "{{ '<|' + messages[0].content }}",
      '{{ messages[0].content[1:] }}',
      "{{ messages[0].content.split('x') | join('') }}",
      '{{ messages[0].content | lower }}',
      '{% for m in messages %}{{ m.content }}{% endfor %}',
    ];
    const parts = [
      '<|im_end|>',
      '<|',
      'im_end',
      '|>',
      '<',
      'x',
      '\n',
      ' ',
      '[INST]',
      '🏿',
      '<think>',
    ];
    for (let seed = 0; seed < 1500; seed++) {
      const random = new Random(seed);
      const content = () =>
        Array.from({ length: random.below(7) }, () => random.pick(parts)).join('');
      const messages: ChatMessage[] = [
        { role: 'user', content: content() },
        { role: 'user', content: content() },
      ];
      const source = { text: random.pick(templates), file: 'test' };
      const pieces = control.split(new ChatTemplate(source, {}, control).render({ messages }).text);
      const tokens = pieces.flatMap((piece) => ('token' in piece ? [piece.token.content] : []));
      expect(
        tokens.filter((t) => t !== '  '),
        `seed ${seed}: ${source.text} ${JSON.stringify(messages)}`,
      ).toEqual([]);
    }
  });
});

describe.each(FIXTURES)('a prompt (%s)', (name) => {
  it('has the control tokens of the template and no others, whatever is typed', async () => {
    const tokenizer = await loadFixture(name);
    const library = loadLibraryFixture(name);
    const added = [...library.get_added_tokens_decoder().values()];
    const contents = added.map((each) => each.content);
    const addedIds = new Set(added.map((each) => each.id));
    const controlIdsOf = async (typed: string) => {
      const messages = [{ role: 'user' as const, content: typed }];
      const { ids } = await tokenizer.encodeChat({ messages }, 100_000);
      return ids.filter((id) => addedIds.has(id));
    };
    const expected = await controlIdsOf('hello');
    for (let seed = 0; seed < 200; seed++) {
      const random = new Random(seed);
      const typed = Array.from({ length: 1 + random.below(8) }, () =>
        random.pick([
          ...contents,
          ...contents.map((c) => c.slice(0, -1)),
          ' ',
          '\n',
          'a',
          '<',
          '🏿',
        ]),
      ).join('');
      expect(await controlIdsOf(typed), JSON.stringify(typed)).toEqual(expected);
      const text = await tokenizer.encodeText(typed, 100_000);
      const plain = await tokenizer.encodeText('a', 100_000);
      const prefix = plain.filter((id) => addedIds.has(id));
      expect(
        text.filter((id) => addedIds.has(id)),
        JSON.stringify(typed),
      ).toEqual(prefix);
    }
  });
});
