// Answers with calls and reasoning in them, from tokens to events, on scripted tokens.
import { describe, expect, it } from 'vitest';
import type { GenerateCommand, WireTools } from '../../worker/protocol.js';
import { saying, start, type Client } from './port-client.js';

const weather = {
  name: 'weather',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};
const tools: WireTools = { definitions: [weather], choice: 'auto', parallel: true };

function chat(client: Client, extra: Partial<GenerateCommand> = {}): number {
  const messages = [{ role: 'user' as const, content: 'hi' }];
  return client.generate({ kind: 'messages', messages }, {}, null, extra);
}

const CALL = '{"tool_call": {"name": "weather", "arguments": {"city": "New York"}}}';

describe('a call', () => {
  it('is told as it comes, and text before it as text', async () => {
    const { ids, nextToken } = await saying(`I look. ${CALL}`);
    const client = start({ nextToken });
    const id = chat(client, { tools, reasoning: false });
    expect(await client.end(id)).toMatchObject({ reason: 'tool-calls', rawReason: 'eos' });
    expect(client.textOf(id)).toBe('I look.');
    const [begun] = client.of('tool-call-start', id);
    const [ended] = client.of('tool-call-end', id);
    expect(begun).toMatchObject({ name: 'weather', callId: ended?.callId });
    const deltas = client.of('tool-call-delta', id).map(({ delta }) => delta);
    expect(deltas.length).toBeGreaterThan(3);
    expect(deltas.join('')).toBe('{"city": "New York"}');
    expect(ended).toMatchObject({ name: 'weather', input: '{"city": "New York"}' });
    // Every token's id is told, whatever it says.
    expect(client.tokensOf(id)).toEqual(ids);
    const { usage } = client.of('finish', id)[0]!;
    expect(usage.outputTokens).toBe(ids.length);
    expect(usage).not.toHaveProperty('reasoningTokens');
  });

  it('is generated under the grammar of its tool, from its trigger or the first byte on', async () => {
    const client = start((await saying(CALL)) as never);
    for (const choice of ['auto', 'required', { name: 'weather' }] as const) {
      await client.end(chat(client, { tools: { ...tools, choice }, reasoning: false }));
    }
    const [engine] = client.addon.engines;
    const [auto, required, named] = engine!.submissions.map(({ constraint }) => constraint);
    expect(auto?.triggers).toEqual(['{"tool_call"']);
    expect(required).not.toHaveProperty('triggers');
    expect(named).not.toHaveProperty('triggers');
    // Another request with the same tools has the same grammar, compiled once.
    await client.end(chat(client, { tools, reasoning: false }));
    expect(engine!.submissions[3]?.constraint?.grammar).toBe(auto?.grammar);
  });

  it('is not looked for where nothing can be called', async () => {
    const client = start({ nextToken: (await saying(CALL)).nextToken });
    const id = chat(client);
    expect(await client.end(id)).toMatchObject({ reason: 'stop' });
    expect(client.textOf(id)).toBe(CALL);
    expect(client.addon.engines[0]!.submissions[0]).not.toHaveProperty('constraint.grammar');
  });

  it('that was cut off has no end, and the answer no calls', async () => {
    const { ids, nextToken } = await saying(CALL);
    const client = start({ nextToken });
    const id = client.generate(
      { kind: 'messages', messages: [{ role: 'user', content: 'hi' }] },
      { maxOutputTokens: ids.length - 6 },
      null,
      { tools },
    );
    expect(await client.end(id)).toMatchObject({ reason: 'length' });
    expect(client.of('tool-call-start', id)).toHaveLength(1);
    expect(client.of('tool-call-end', id)).toHaveLength(0);
  });

  it('keeps stop strings out of its arguments', async () => {
    const { nextToken } = await saying(`One. Two. ${CALL}`);
    const client = start({ nextToken });
    const request = (stop: string[]) =>
      client.generate(
        { kind: 'messages', messages: [{ role: 'user', content: 'hi' }] },
        { stop },
        null,
        { tools },
      );
    const inside = request(['New']);
    expect(await client.end(inside)).toMatchObject({ reason: 'tool-calls' });
    expect(client.of('tool-call-end', inside)[0]?.input).toBe('{"city": "New York"}');
    const before = request(['. T']);
    expect(await client.end(before)).toMatchObject({ rawReason: 'stop-string:. T' });
    expect(client.textOf(before)).toBe('One');
    expect(client.of('tool-call-start', before)).toHaveLength(0);
  });

  it('whose schema cannot be enforced is refused by name, and nobody else notices', async () => {
    const { nextToken } = await saying('hello');
    const client = start({ nextToken });
    const other = chat(client);
    const parameters = { type: 'object', properties: { a: { type: 'strin' } } };
    const definitions = [weather, { name: 'bad', parameters }];
    const id = chat(client, { tools: { ...tools, definitions } });
    const failed = await client.end(id);
    expect(failed).toMatchObject({ type: 'failed', error: { code: 'CONSTRAINT_INVALID' } });
    expect(JSON.stringify(failed)).toContain('request.tools[1].parameters');
    expect(await client.end(other)).toMatchObject({ type: 'finish' });
  });
});

describe('reasoning', () => {
  it('is told apart from the answer, and its tokens are counted', async () => {
    // The fixture's template cuts reasoning out of earlier turns.
    const { ids, nextToken } = await saying('<think>\nhm, well\n</think>\n\nhello world');
    const client = start({ nextToken });
    const id = chat(client);
    await client.end(id);
    const reasoning = client.of('reasoning-delta', id).map(({ text }) => text);
    expect(reasoning.join('')).toBe('hm, well');
    expect(client.textOf(id)).toBe('hello world');
    expect(client.tokensOf(id)).toEqual(ids);
    const { usage } = client.of('finish', id)[0]!;
    expect(usage.reasoningTokens).toBeGreaterThan(4);
    expect(usage.reasoningTokens).toBeLessThan(ids.length - 2);
    // A prompt without a chat is no reasoning model's.
    const plain = client.generate('hi');
    await client.end(plain);
    expect(client.textOf(plain)).toContain('hm, well');
    expect(client.of('finish', plain)[0]?.usage).not.toHaveProperty('reasoningTokens');
  });
});
