// What the parser makes of an answer, however it is cut into pieces.
import { describe, expect, it } from 'vitest';
import * as formats from '../../../worker/chat/call-format.js';
import type { CallFormat } from '../../../worker/chat/call-format.js';
import {
  planAnswer,
  type AnswerPlan,
  type AnswerRequest,
} from '../../../worker/output/answer-plan.js';
import type { AnswerPart } from '../../../worker/output/answer-parser.js';
import { Random } from '../random.js';

const FORMATS = Object.entries(formats).filter(
  (entry): entry is [string, CallFormat] => typeof entry[1] === 'object',
);
const tags = { open: '<think>', close: '</think>', inTemplate: true };
const special = (content: string, id: number) => ({
  ...{ id, content, special: true, lstrip: false, rstrip: false },
});
/** In one run the markers are special tokens, in the other they are text. */
const SPECIAL = ['[TOOL_CALLS]', '[ARGS]', '<tool_call>', '</tool_call>', '<|python_tag|>'].map(
  special,
);
const tools = {
  definitions: ['get', 'get_weather'].map((name) => ({ name, parameters: true })),
  ...{ choice: 'auto' as const, parallel: true },
};
const calls = [
  { name: 'get_weather', input: '{"city": "New \\"York\\" }]"}' },
  { name: 'get', input: '{}' },
  { name: 'get', input: '{"a": [1, {"b": "<tool_call>{\\\\"}], "c": "[TOOL_CALLS]"}' },
];

function planOf(format: CallFormat, request: AnswerRequest, specials = SPECIAL) {
  return planAnswer({ callFormat: format, reasoningTags: tags, special: specials }, request);
}

/** The answer as its tokens are detokenized. */
function written(format: CallFormat, signs: ReadonlyMap<number, string>, lead = '') {
  const { first, next, before, after, close, end } = format;
  let text = '';
  const marked = (marker: string) => {
    for (const { id, content } of SPECIAL) {
      const sign = signs.get(id);
      if (sign !== undefined) marker = marker.replaceAll(content, sign);
    }
    text += marker;
  };
  calls.forEach(({ name, input }, index) => {
    marked((index === 0 ? lead + first : next) + before + name + after);
    text += input;
    marked(close);
  });
  marked(end);
  return text;
}

function read(parts: AnswerPart[]) {
  const answer = { text: '', reasoning: '', calls: [] as { name: string; input: string }[] };
  const deltas = new Map<string, string>();
  for (const part of parts) {
    if (part.type === 'text') answer.text += part.text;
    else if (part.type === 'reasoning-delta') answer.reasoning += part.text;
    else if (part.type === 'tool-call-start') deltas.set(part.callId, '');
    else if (part.type === 'tool-call-delta') {
      deltas.set(part.callId, deltas.get(part.callId) + part.delta);
    } else {
      expect(part.callId).toMatch(/^[A-Za-z0-9]{9}$/);
      expect(deltas.get(part.callId)).toBe(part.input);
      answer.calls.push({ name: part.name, input: part.input });
    }
  }
  expect(deltas.size).toBe(answer.calls.length);
  return answer;
}

/** In pieces of random length; never half a marker, so what is given out is checked as it comes. */
function readInPieces(text: string, seed: number, plan: AnswerPlan) {
  const { parser } = plan.reading!;
  const random = new Random(seed);
  const parts: AnswerPart[] = [];
  for (let at = 0; at < text.length;) {
    const length = seed === 0 ? text.length : 1 + random.below(seed % 2 === 0 ? 3 : 12);
    parts.push(...parser.push(text.slice(at, at + length)));
    at += length;
  }
  return [...parts, ...parser.flush()];
}

describe.each([
  ['special tokens', SPECIAL],
  ['text', []],
])('markers that are %s', (_, specials) => {
  it.each(FORMATS)('%s: text, then calls', (_name, format) => {
    for (let seed = 0; seed < 60; seed++) {
      const plan = planOf(format, { tools, thinking: 'none' }, specials);
      const text = `I look <tool {"nam [TOOL it up. `;
      const answer = text + written(format, plan.reading!.signs);
      const { text: said, ...rest } = read(readInPieces(answer, seed, plan));
      // text-output.ts takes the spaces before a call away.
      expect(said, `seed ${seed}`).toBe(text);
      expect(rest).toEqual({ reasoning: '', calls });
    }
  });

  it.each(FORMATS)('%s: reasoning that speaks of calls, then calls', (_name, format) => {
    for (const thinking of ['open', 'maybe'] as const) {
      for (let seed = 0; seed < 30; seed++) {
        const plan = planOf(format, { tools, thinking }, specials);
        const thought = 'Shall I <tool_call> {"name": "get", </thin ... yes';
        const open = thinking === 'maybe' ? '\n<think>' : '';
        const answer = `${open}\n${thought}\n</think>\n\n${written(format, plan.reading!.signs)}`;
        const { text, ...rest } = read(readInPieces(answer, seed, plan));
        expect(text).toBe('');
        expect(rest).toEqual({ reasoning: thought, calls });
      }
    }
  });

  it.each(FORMATS)('%s: calls beside a structured answer', (_name, format) => {
    const request = {
      tools,
      constraint: { type: 'json', schema: '{}' },
      thinking: 'none',
    } as const;
    for (let seed = 0; seed < 30; seed++) {
      const plan = planOf(format, request, specials);
      const answer = written(format, plan.reading!.signs, format.besideJson);
      expect(read(readInPieces(answer, seed, plan)).calls).toEqual(calls);
      // Only from the first character on: an answer may speak of calls.
      const other = planOf(format, request, specials);
      const json = `{"text": "${format.first}${format.before}get${format.after}{}"}`;
      expect(read(readInPieces(json, seed, other))).toEqual({
        ...{ text: json, reasoning: '', calls: [] },
      });
    }
  });
});

describe('answers without calls', () => {
  it('give out everything, also what looked like a beginning', () => {
    const endings = ['<tool_cal', '<tool_call>\n{"name": "oth', 'x <', '', ' \n'];
    for (const ending of endings) {
      for (let seed = 0; seed < 5; seed++) {
        const request = { tools, thinking: 'maybe' } as const;
        const plan = planOf(formats.HERMES, request, []);
        const text = `So: 1 < 2.${ending}`;
        expect(read(readInPieces(text, seed, plan)).text).toBe(text);
      }
    }
  });

  it('may be cut off anywhere', () => {
    const request = { tools, thinking: 'maybe' } as const;
    for (const [_, format] of FORMATS) {
      const { signs } = planOf(format, request).reading!;
      const whole = `<think>hm</think>\n\nSee.${written(format, signs)}`;
      for (let length = 0; length <= whole.length; length++) {
        const plan = planOf(format, request);
        const parts = readInPieces(whole.slice(0, length), length, plan);
        const ended = parts.filter((part) => part.type === 'tool-call-end');
        const reasoning = parts.map((p) => (p.type === 'reasoning-delta' ? p.text : '')).join('');
        const text = parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
        expect('hm'.startsWith(reasoning.replace(/<\/?t?h?i?n?k?$/, ''))).toBe(true);
        if (length >= whole.indexOf('See.') + 4) expect(text).toContain('See.');
        calls.slice(0, ended.length).forEach((call, i) => expect(ended[i]).toMatchObject(call));
      }
    }
  });

  it('are nothing but text where there is nothing else', () => {
    const style = { callFormat: formats.HERMES, reasoningTags: null, special: [] };
    const plan = planAnswer(style, { thinking: 'none' });
    expect(plan).toEqual({ grammar: null, reading: null });
  });
});

describe('reasoning', () => {
  it('has no spaces of its tags, and keeps its own', () => {
    const plan = planOf(formats.HERMES, { thinking: 'open' }, []);
    const text = '\n a  b\n\nc \n</think>\n\n The answer.\n';
    expect(read(readInPieces(text, 2, plan))).toEqual({
      ...{ reasoning: 'a  b\n\nc', text: 'The answer.\n', calls: [] },
    });
  });

  it('is told from an answer that only begins alike', () => {
    const request = { thinking: 'maybe' } as const;
    for (const text of ['<thin air>', '  <b>', '<']) {
      for (let seed = 0; seed < 4; seed++) {
        const plan = planOf(formats.HERMES, request, []);
        expect(read(readInPieces(text, seed, plan)).text).toBe(text);
      }
    }
  });
});
