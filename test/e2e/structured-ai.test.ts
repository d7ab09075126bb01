// Structured output through ai 7 and ai 6 on the demo model, which has never been taught any JSON.
import { generateText, Output, streamText } from 'ai';
import {
  generateObject as generateObject6,
  generateText as generateText6,
  Output as Output6,
} from 'ai6';
import { createLorax, LoraxError } from 'lorax-js';
import type { LoraxProvider } from 'lorax-js';
import { createLorax as createLorax6 } from 'lorax-js/ai6';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { testDevice } from './suites/test-device.js';

const model = fileURLToPath(new URL('../../models/demo', import.meta.url));
const prompt = 'Where is my order 4821?';

interface Step {
  text: string;
  next: Step[];
}
const step: z.ZodType<Step> = z.object({
  text: z.string().max(20),
  get next() {
    return z.array(step).max(2);
  },
});
const ticket = z.object({
  topic: z.enum(['shipping', 'returns']),
  order: z.int().min(1000).max(9999),
  when: z.iso.date().nullable(),
  contact: z.discriminatedUnion('by', [
    z.object({ by: z.literal('mail'), address: z.email() }),
    z.object({ by: z.literal('phone'), number: z.string().regex(/^\+\d{6,9}$/) }),
  ]),
});

let lorax: LoraxProvider;
beforeAll(() => {
  lorax = createLorax({ model, ...testDevice, defaults: { maxOutputTokens: 256 } });
});
afterAll(() => lorax.dispose());

describe('ai 7', () => {
  it('Output.object, hot and cold', async () => {
    const output = Output.object({ schema: ticket });
    for (const temperature of [0, 1, 2]) {
      const settings = { model: lorax(), prompt, temperature, seed: 7, output };
      const result = await generateText(settings);
      expect(ticket.parse(result.output)).toEqual(JSON.parse(result.text));
      expect(result.finishReason).toBe('stop');
    }
  });

  it('Output.object of a recursive schema', async () => {
    const output = Output.object({ schema: step });
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, seed) =>
        generateText({ model: lorax(), prompt, temperature: 1.5, seed, output }),
      ),
    );
    for (const { output: value } of answers) expect(step.parse(value)).toEqual(value);
  });

  it('Output.array, element by element', async () => {
    const element = ticket.pick({ topic: true, order: true });
    const { elementStream } = streamText({
      ...{ model: lorax(), prompt },
      output: Output.array({ element, minItems: 2, maxItems: 3 }),
    });
    let elements = 0;
    for await (const each of elementStream) {
      expect(element.parse(each)).toEqual(each);
      elements++;
    }
    expect(elements).toBeGreaterThanOrEqual(2);
  });

  it('Output.choice and Output.json', async () => {
    const options = ['refund', 'order', 'greeting'];
    const chosen = await generateText({
      ...{ model: lorax(), prompt, output: Output.choice({ options }) },
    });
    expect(options).toContain(chosen.output);
    const json = await generateText({
      ...{ model: lorax(), prompt, temperature: 1.5, seed: 3, output: Output.json() },
      maxOutputTokens: 40,
    });
    expect(json.output).toEqual(JSON.parse(json.text));
    expect(json.usage.outputTokens).toBeLessThanOrEqual(40);
  });

  it('a schema that cannot be enforced is an error with its code', async () => {
    const schema = z.object({ tags: z.array(z.string()).meta({ uniqueItems: true }) });
    const output = Output.object({ schema });
    const error: unknown = await generateText({ model: lorax(), prompt, output }).catch((e) => e);
    expect(LoraxError.isInstance(error) && [error.code, error.data]).toEqual([
      'CONSTRAINT_UNSUPPORTED',
      { keyword: 'uniqueItems', pointer: '#/properties/tags' },
    ]);
  });
});

describe('ai 6', () => {
  it('generateObject and Output.object', async () => {
    const lorax6 = createLorax6({ model, ...testDevice, defaults: { maxOutputTokens: 256 } });
    const { object } = await generateObject6({ model: lorax6(), schema: ticket, prompt });
    expect(ticket.parse(object)).toEqual(object);
    const output = Output6.object({ schema: ticket });
    const result = await generateText6({ model: lorax6(), prompt, output });
    expect(result.output).toEqual(object);
    await lorax6.dispose();
  });
});
