// Everything that an answer's grammar lets through is read as what was asked for.
import { describe, expect, it } from 'vitest';
import * as formats from '../../../worker/chat/call-format.js';
import type { CallFormat } from '../../../worker/chat/call-format.js';
import type { AnswerPart } from '../../../worker/output/answer-parser.js';
import { planAnswer, type AnswerRequest } from '../../../worker/output/answer-plan.js';
import { compileSchema } from '../grammar/ajv.js';
import { GbnfMachine } from '../grammar/gbnf-machine.js';
import { Random } from '../random.js';

const FORMATS = Object.entries(formats).filter(
  (entry): entry is [string, CallFormat] => typeof entry[1] === 'object',
);
const weather = {
  ...{ type: 'object', additionalProperties: false, required: ['city'] },
  properties: {
    city: { type: 'string', maxLength: 8 },
    days: { type: 'integer', minimum: 1, maximum: 9 },
    unit: { enum: ['C', 'F'] },
  },
};
const tree = {
  ...{ type: 'object', properties: { root: { $ref: '#/$defs/node' } }, required: ['root'] },
  $defs: { node: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 } },
};
const schemas = { weather, weather_at: tree, now: { type: 'object', properties: {} } };
const valid = new Map(
  Object.entries(schemas).map(([name, schema]) => [name, compileSchema(schema)]),
);
const answerSchema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'] };
const constraint = { type: 'json' as const, schema: JSON.stringify(answerSchema) };
const definitions = Object.entries(schemas).map(([name, parameters]) => ({ name, parameters }));
const tools = (choice: 'auto' | 'required' | { name: string } = 'auto', parallel = true) => ({
  ...{ definitions, choice, parallel },
});
const tags = { open: '<think>', close: '</think>', inTemplate: true };

const styleOf = (callFormat: CallFormat) => ({ callFormat, reasoningTags: tags, special: [] });

/** Samples answers and reads them; what the grammar does not govern is given as `free`. */
async function* answers(format: CallFormat, request: AnswerRequest, count: number, free = '') {
  const style = styleOf(format);
  const { grammar } = planAnswer(style, request);
  const machine = new GbnfMachine((await grammar?.text()) ?? '');
  for (let seed = 1; seed <= count; seed++) {
    const random = new Random(seed);
    const next = () => random.below(1 << 20) / (1 << 20);
    const text = free + machine.sample(next, 20 + random.below(200));
    const { parser } = planAnswer(style, request).reading!;
    const parts: AnswerPart[] = [];
    for (let at = 0; at < text.length; at += 7) parts.push(...parser.push(text.slice(at, at + 7)));
    parts.push(...parser.flush());
    yield { text, ...read(parts) };
  }
}

function read(parts: AnswerPart[]) {
  const all = { said: '', reasoning: '', calls: [] as { name: string; input: string }[], open: 0 };
  const deltas = new Map<string, string>();
  for (const part of parts) {
    if (part.type === 'text') all.said += part.text;
    else if (part.type === 'reasoning-delta') all.reasoning += part.text;
    else if (part.type === 'tool-call-start') all.open++;
    else if (part.type === 'tool-call-delta') {
      deltas.set(part.callId, (deltas.get(part.callId) ?? '') + part.delta);
    } else {
      all.open--;
      expect(deltas.get(part.callId)).toBe(part.input);
      all.calls.push(part);
    }
  }
  expect(deltas.size).toBe(all.calls.length);
  return all;
}

function expectValid({ text, calls, open }: { text: string } & ReturnType<typeof read>) {
  expect(open, text).toBe(0);
  for (const { name, input } of calls) {
    expect(valid.get(name)?.(JSON.parse(input)), `${name} ${input} in ${text}`).toBe(true);
  }
}

describe.each(FORMATS)('%s', (_name, format) => {
  it('a trigger in free text becomes valid calls', async () => {
    let several = 0;
    const request = { tools: tools(), thinking: 'none' } as const;
    const { grammar } = planAnswer(styleOf(format), request);
    expect(grammar?.triggers).toEqual([format.trigger]);
    for await (const answer of answers(format, request, 60, `I see.${format.trigger}`)) {
      expectValid(answer);
      expect(answer.said).toBe('I see.');
      expect(answer.calls.length).toBeGreaterThan(0);
      if (answer.calls.length > 1) several++;
    }
    expect(several).toBeGreaterThan(5);
  });

  it('required: calls and nothing else; one where only one is wanted', async () => {
    for await (const answer of answers(
      format,
      { tools: tools('required'), thinking: 'none' },
      60,
    )) {
      expectValid(answer);
      expect(answer.said).toBe('');
      expect(answer.calls.length).toBeGreaterThan(0);
    }
    for (const one of [tools('required', false), tools({ name: 'now' })]) {
      for await (const answer of answers(format, { tools: one, thinking: 'none' }, 30)) {
        expectValid(answer);
        expect(answer.calls).toHaveLength(1);
        if (typeof one.choice === 'object') expect(answer.calls[0]?.name).toBe('now');
      }
    }
  });

  it('beside a structured answer: one or the other', async () => {
    const seen = { calls: 0, json: 0 };
    const request = { tools: tools(), constraint, thinking: 'none' } as const;
    for await (const answer of answers(format, request, 80)) {
      expectValid(answer);
      if (answer.calls.length === 0) {
        expect(typeof (JSON.parse(answer.said) as { ok: unknown }).ok).toBe('boolean');
        seen.json++;
      } else {
        expect(answer.said).toBe('');
        seen.calls++;
      }
    }
    expect(Math.min(seen.calls, seen.json)).toBeGreaterThan(5);
  });

  it('after reasoning, which may speak of anything', async () => {
    const seen = { calls: 0, reasoning: 0 };
    for (const thinking of ['open', 'maybe'] as const) {
      for await (const answer of answers(format, { tools: tools('required'), thinking }, 40)) {
        expectValid(answer);
        expect(answer.said).toBe('');
        expect(answer.calls.length).toBeGreaterThan(0);
        if (answer.reasoning !== '') seen.reasoning++;
      }
      for await (const answer of answers(format, { tools: tools(), thinking }, 40)) {
        expectValid(answer);
        if (answer.calls.length > 0) seen.calls++;
      }
      for await (const answer of answers(format, { constraint, thinking }, 20)) {
        expect(typeof (JSON.parse(answer.said) as { ok: unknown }).ok).toBe('boolean');
      }
    }
    expect(seen.reasoning).toBeGreaterThan(20);
  });

  it('refuses what would be no call', async () => {
    const { first, before, after, close, end } = format;
    const call = (name: string, input: string) => first + before + name + after + input + close;
    const text = await planAnswer(styleOf(format), {
      ...{ tools: tools('required', false), thinking: 'none' },
    }).grammar!.text();
    const machine = new GbnfMachine(text);
    expect(machine.matches(call('now', '{}') + end)).toBe(true);
    expect(machine.matches(call('weather', '{"city": "Rome"}') + end)).toBe(true);
    expect(machine.matches(call('weather', '{}') + end)).toBe(false);
    expect(machine.matches(call('weather_', '{"city": "Rome"}') + end)).toBe(false);
    expect(machine.matches(call('other', '{}') + end)).toBe(false);
    expect(machine.matches(call('now', '{}') + format.next + call('now', '{}') + end)).toBe(false);
    expect(machine.matches(`Well. ${call('now', '{}')}${end}`)).toBe(false);
    expect(machine.matches(call('now', '{}').slice(0, -1))).toBe(close === '' && end !== '');
  });
});

describe('text that a grammar governs', () => {
  it('has no marker in it but that of a call', async () => {
    const request = { tools: tools(), thinking: 'open' } as const;
    const text = (await planAnswer(styleOf(formats.HERMES), request).grammar!.text()) ?? '';
    const machine = new GbnfMachine(text);
    const hermes = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>';
    expect(machine.matches('hm <tool_call> <</think>\n\nYes, 1 << 2 <tool_cal.')).toBe(true);
    expect(machine.matches(`hm</think><<tool_<${hermes}\n${hermes}`)).toBe(true);
    expect(machine.matches('hm</think>Yes <tool_call> no')).toBe(false);
    expect(machine.matches(`hm</think>${hermes} and more`)).toBe(false);
    // Reasoning may take all there is; before a call that must come, it may not.
    expect(machine.matches('hm')).toBe(true);
    const must = { tools: tools('required'), thinking: 'open' } as const;
    const required = new GbnfMachine(
      await planAnswer(styleOf(formats.HERMES), must).grammar!.text(),
    );
    expect(required.matches('hm')).toBe(false);
    expect(required.matches(`hm</think>${hermes}`)).toBe(true);
  });
});
