// Tool calls in each family of chat templates, on the real engine, with weights that know none of
// them and a temperature at which anything may be said: what holds here holds by the grammar.
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4Prompt,
  LanguageModelV4StreamPart,
} from '@ai-sdk/provider';
import type { LoraxProvider } from 'lorax-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as templates from '../../chat-templates.js';
import { demoVariant, type DemoVariant, type VariantOptions } from '../../demo-variant.js';
import { compileSchema } from '../../worker/grammar/ajv.js';
import type { Sdk } from './sdk.js';
import { user } from './sdk.js';

interface Family {
  template: string;
  tokens: VariantOptions;
  /** A token that begins a call by itself. */
  trigger: string;
}

/** Markers that are tokens, special ones, and text: every way that a tokenizer may have them. */
const FAMILIES: Record<string, Family> = {
  Hermes: {
    template: templates.HERMES,
    tokens: { added: ['<tool_call>', '</tool_call>'] },
    trigger: '<tool_call>',
  },
  'Llama 3': {
    template: templates.LLAMA3,
    tokens: { added: ['{"name"'], special: ['<|python_tag|>'] },
    trigger: '{"name"',
  },
  Mistral: {
    template: templates.MISTRAL,
    tokens: { special: ['[TOOL_CALLS]', '[ARGS]'] },
    trigger: '[TOOL_CALLS]',
  },
  'Mistral v11': {
    template: templates.MISTRAL_ARGS,
    tokens: { special: ['[TOOL_CALLS]', '[ARGS]'] },
    trigger: '[TOOL_CALLS]',
  },
  'plain JSON': {
    template: templates.CHATML,
    tokens: { added: ['{"tool_call"'] },
    trigger: '{"tool_call"',
  },
};

const SCHEMAS: Record<string, Record<string, unknown>> = {
  order_status: {
    ...{ type: 'object', required: ['order'], additionalProperties: false },
    properties: {
      order: { type: 'string', pattern: '^[0-9]{4}$' },
      lines: { type: 'array', items: { type: 'integer', minimum: 1, maximum: 99 }, maxItems: 3 },
    },
  },
  order_cancel: {
    ...{ type: 'object', required: ['order', 'reason'], additionalProperties: false },
    properties: {
      order: { type: 'object', properties: { id: { type: 'number' } }, required: ['id'] },
      reason: { anyOf: [{ enum: ['late', 'broken "glass"'] }, { type: 'null' }] },
    },
  },
  now: { type: 'object', properties: {}, additionalProperties: false },
};
const validators = new Map(
  Object.entries(SCHEMAS).map(([name, schema]) => [name, compileSchema(schema)]),
);
const tools = Object.entries(SCHEMAS).map(([name, inputSchema]) => ({
  ...{ type: 'function' as const, name, description: `Does ${name}.`, inputSchema },
}));
const ANSWER = {
  ...{ type: 'object', required: ['ok'], additionalProperties: false },
  properties: { ok: { type: 'boolean' } },
};

type Part = LanguageModelV4StreamPart;

/** The demo model's tokens that end a turn come late: more calls in one answer. */
const TALKATIVE = { lorax: { logitBias: { 0: -100, 2: -100 } } };

/** What a stream's calls are, having held every part of them against the specification. */
function checkedCalls(parts: readonly Part[]): { name: string; input: string; id: string }[] {
  const calls: { name: string; input: string; id: string }[] = [];
  let open: { id: string; name: string; input: string } | undefined;
  let ended: typeof open;
  for (const part of parts) {
    if (part.type === 'tool-input-start') {
      expect(open).toBeUndefined();
      open = { id: part.id, name: part.toolName, input: '' };
    } else if (part.type === 'tool-input-delta') {
      expect(part.id).toBe(open?.id);
      open!.input += part.delta;
    } else if (part.type === 'tool-input-end') {
      expect(part.id).toBe(open?.id);
      [ended, open] = [open, undefined];
    } else if (part.type === 'tool-call') {
      const { toolCallId: id, toolName: name, input } = part;
      expect({ id, name, input }).toEqual(ended);
      calls.push({ id, name, input });
    }
  }
  expect(open).toBeUndefined();
  for (const { name, input } of calls) {
    expect(validators.get(name)?.(JSON.parse(input)), `${name} ${input}`).toBe(true);
  }
  expect(new Set(calls.map(({ id }) => id)).size).toBe(calls.length);
  return calls;
}

export function describeTools({ ai, createLorax }: Sdk): void {
  describe.each(Object.entries(FAMILIES))('%s', (_name, { template, tokens, trigger }) => {
    let variant: DemoVariant;
    let lorax: LoraxProvider;
    const seen = { calls: 0, parallel: 0, text: 0, json: 0, ids: new Set<string>() };
    beforeAll(() => {
      variant = demoVariant(template, tokens);
      lorax = createLorax({ model: variant.directory });
    });
    afterAll(async () => {
      await lorax.dispose();
      variant.remove();
    });

    const options = (seed: number, more: Partial<LanguageModelV4CallOptions>) => ({
      ...{ prompt: user('Where is my order 4821?'), tools, temperature: 1.5, seed },
      ...{ maxOutputTokens: 160, ...more },
    });
    /** All at once, in one batch. */
    const stream = (count: number, more: Partial<LanguageModelV4CallOptions>) =>
      Promise.all(
        Array.from({ length: count }, async (_, seed) => {
          const result = await lorax().doStream(options(seed, more));
          const parts: Part[] = [];
          for await (const part of result.stream) parts.push(part as Part);
          const calls = checkedCalls(parts);
          calls.forEach(({ id }) => seen.ids.add(id));
          seen.calls += calls.length;
          if (calls.length > 1) seen.parallel++;
          const finish = parts.at(-1) as Part & { type: 'finish' };
          const text = parts.map((part) => (part.type === 'text-delta' ? part.delta : '')).join('');
          return { calls, text, reason: finish.finishReason.unified };
        }),
      );

    it('required: nothing but calls, one at least', async () => {
      const more = { toolChoice: { type: 'required' as const }, providerOptions: TALKATIVE };
      for (const { calls, text, reason } of await stream(24, more)) {
        expect(calls.length).toBeGreaterThan(0);
        expect([text, reason]).toEqual(['', 'tool-calls']);
      }
    });

    it('one tool: that one, once', async () => {
      for (const toolName of Object.keys(SCHEMAS)) {
        const toolChoice = { type: 'tool', toolName } as const;
        for (const { calls } of await stream(6, { toolChoice })) {
          expect(calls.map(({ name }) => name)).toEqual([toolName]);
        }
      }
    });

    it('auto: text, calls, or calls after text', async () => {
      const id = variant.tokens.get(trigger);
      const providerOptions = { lorax: { logitBias: { [id!]: 11 } } };
      const answers = await stream(24, { providerOptions });
      for (const { calls, text, reason } of answers) {
        expect(reason).toBe(calls.length > 0 ? 'tool-calls' : 'stop');
        expect(text).not.toContain(trigger);
        expect(text).not.toMatch(/\s$/);
        if (calls.length > 0 && text !== '') seen.text++;
      }
      expect(answers.some(({ calls }) => calls.length > 0)).toBe(true);
    });

    it('none: no calls; not parallel: one', async () => {
      for (const { calls } of await stream(4, { toolChoice: { type: 'none' } })) {
        expect(calls).toEqual([]);
      }
      const providerOptions = { lorax: { parallelToolCalls: false } };
      const toolChoice = { type: 'required' } as const;
      for (const { calls } of await stream(8, { toolChoice, providerOptions })) {
        expect(calls).toHaveLength(1);
      }
    });

    it('with structured output: a call or an answer that matches', async () => {
      const responseFormat = { type: 'json' as const, schema: ANSWER as never };
      for (const { calls, text } of await stream(16, { responseFormat })) {
        if (calls.length > 0) expect(text).toBe('');
        else expect(Object.keys(JSON.parse(text) as object)).toEqual(['ok']);
        if (calls.length === 0) seen.json++;
      }
    });

    it('doGenerate gives the same calls', async () => {
      const toolChoice = { type: 'required' } as const;
      const [streamed] = await stream(1, { toolChoice });
      const { content } = await lorax().doGenerate(options(0, { toolChoice }));
      const calls = (content as LanguageModelV4Content[]).filter(
        ({ type }) => type === 'tool-call',
      );
      expect(calls.map((call) => (call as { input: string }).input)).toEqual(
        streamed!.calls.map(({ input }) => input),
      );
    });

    it('results may come in any order of turns', async () => {
      const call = (toolCallId: string, toolName: string, input: object) => ({
        ...{ type: 'tool-call' as const, toolCallId, toolName, input },
      });
      const result = (toolCallId: string, toolName: string) => ({
        ...{ type: 'tool-result' as const, toolCallId, toolName },
        output: { type: 'json' as const, value: { ok: true } },
      });
      const asked = {
        role: 'assistant' as const,
        content: [call('call_1', 'now', {}), call('two', 'order_status', { order: '1234' })],
      };
      const turns: LanguageModelV4Prompt[] = [
        [{ role: 'tool', content: [result('two', 'order_status'), result('call_1', 'now')] }],
        [
          { role: 'tool', content: [result('two', 'order_status')] },
          { role: 'tool', content: [result('call_1', 'now')] },
        ],
      ];
      for (const results of turns) {
        const prompt = [...user('x'), asked, ...results, ...user('And?')];
        const { calls } = checkedAnswer(
          await lorax().doGenerate({ ...options(1, { toolChoice: { type: 'required' } }), prompt }),
        );
        expect(calls).toBeGreaterThan(0);
      }
    });

    it('an agent goes on from step to step until it is stopped', async () => {
      const ran: string[] = [];
      const { steps } = await ai.generateText({
        ...{ model: lorax(), prompt: 'Cancel my order.', temperature: 1.5, seed: 5 },
        ...{ maxOutputTokens: 250, toolChoice: 'required', stopWhen: ai.stepCountIs(3) },
        providerOptions: { lorax: { parallelToolCalls: false } },
        tools: Object.fromEntries(
          Object.entries(SCHEMAS).map(([name, schema]) => [
            name,
            ai.tool({
              inputSchema: ai.jsonSchema(schema),
              execute: async (input: unknown) => {
                ran.push(name);
                return { done: input };
              },
            }),
          ]),
        ),
      });
      expect(steps).toHaveLength(3);
      expect(ran).toEqual(steps.map((step) => step.toolCalls[0]?.toolName));
      expect(steps.every(({ finishReason }) => finishReason === 'tool-calls')).toBe(true);
      const prompts = steps.map(({ usage }) => usage.inputTokens ?? 0);
      expect(prompts[1]).toBeGreaterThan(prompts[0]!);
      expect(prompts[2]).toBeGreaterThan(prompts[1]!);
    });

    it('and of all that: every call was valid, every id another', () => {
      expect(seen.ids.size).toBe(seen.calls);
      expect(seen.calls).toBeGreaterThan(60);
      expect(seen.parallel).toBeGreaterThan(3);
      expect(seen.text + seen.json).toBeGreaterThan(0);
    });
  });

  function checkedAnswer({ content }: { content: object[] }): { calls: number } {
    const calls = (content as LanguageModelV4Content[]).filter((part) => part.type === 'tool-call');
    for (const { toolName, input } of calls) {
      expect(validators.get(toolName)?.(JSON.parse(input)), input).toBe(true);
    }
    return { calls: calls.length };
  }
}
