/** Every schema of schemas.ts: what its grammar matches and what not, with ajv as the judge. */
import { describe, expect, it } from 'vitest';
import { constraintGrammar } from '../../../worker/grammar/constraint-grammar.js';
import { Random } from '../random.js';
import { compileSchema } from './ajv.js';
import { GbnfMachine } from './gbnf-machine.js';
import { mutated } from './mutate.js';
import { SCHEMAS } from './schemas.js';

const textOf = (value: unknown): string => {
  const given = value as { text?: unknown } | null;
  const isText = typeof given === 'object' && typeof given?.text === 'string';
  return isText ? (given.text as string) : JSON.stringify(value);
};

function parsed(text: string): { value: unknown } | null {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return null;
  }
}

/** Valid, but never written: long numbers, exponents, names that JavaScript sorts. */
function isOutOfForm(text: string): boolean {
  return /\d{16}|\de[+-]?\d|"\d+":/.test(text);
}

describe.each(SCHEMAS)('$name', ({ name, schema, yes, no, narrowed = [], isNarrow = false }) => {
  const grammar = constraintGrammar({ type: 'json', schema: JSON.stringify(schema) });
  const isValid = compileSchema(schema);

  it('matches its values and no others', async () => {
    const machine = new GbnfMachine(await grammar);
    for (const value of [...yes, ...narrowed]) {
      expect(isValid(parsed(textOf(value))!.value), `ajv on ${textOf(value)}`).toBe(true);
    }
    for (const value of yes) expect(machine.matches(textOf(value)), textOf(value)).toBe(true);
    for (const value of [...no, ...narrowed]) {
      expect(machine.matches(textOf(value)), textOf(value)).toBe(false);
    }
  });

  it('writes only what is valid; takes what is valid and of its form', async () => {
    const machine = new GbnfMachine(await grammar);
    const random = new Random(name.length * 104729);
    for (let i = 0; i < 60; i++) {
      const text = machine.sample(() => random.next(), random.below(120));
      const value = parsed(text);
      expect(value, text).not.toBeNull();
      expect(isValid(value!.value), `${text}: ${JSON.stringify(isValid.errors)}`).toBe(true);
      expect(machine.matches(text), text).toBe(true);
      // What is near to it is written if and only if it is valid, but for what is said to be narrow.
      const near = mutated(value!.value, random);
      const nearText = JSON.stringify(near);
      if (isValid(near) && (isNarrow || isOutOfForm(nearText))) continue;
      expect(machine.matches(nearText), nearText).toBe(isValid(near));
    }
  });
});
