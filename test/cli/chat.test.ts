// A conversation in the terminal: who answers, what is remembered, how two answers look side by side.
import { expect, test } from 'vitest';
import { columns, wrap } from '../../src/cli/chat/columns.js';
import { ChatSession, type ChatStep } from '../../src/cli/chat/chat-session.js';
import { FakeEngine } from '../../src/testing/fake-engine.js';
import type { FakeRequest } from '../../src/testing/fake-answer.js';

function sessionOf() {
  const heard: { adapter: string; messages: string[] }[] = [];
  const answer = (request: FakeRequest) => {
    const messages = request.messages.map(({ role, content }) => `${role}: ${content}`);
    heard.push({ adapter: request.adapter, messages });
    return `${request.adapter} ${heard.length}`;
  };
  const engine = new FakeEngine({
    answers: { base: answer, pirate: answer, french: answer, broken: new Error('no') },
  });
  const names = ['broken', 'french', 'pirate'];
  return { heard, session: new ChatSession({ engine, names, sampling: {} }) };
}

async function answersOf(step: ChatStep): Promise<string[]> {
  if (step.kind !== 'question') throw new Error(step.kind);
  return Promise.all(
    step.answers.map(async ({ text }) => {
      let whole = '';
      for await (const piece of text) whole += piece;
      return whole;
    }),
  );
}
const toldBy = (step: ChatStep) => (step.kind === 'told' ? step.lines.join('\n') : step.kind);

test('an adapter goes on with what was said to another', async () => {
  const { session, heard } = sessionOf();
  expect(session.prompt).toBe('base> ');
  expect(await answersOf(session.take('one'))).toEqual(['base 1']);
  expect(toldBy(session.take('/adapter pirate'))).toBe('pirate answers');
  expect(session.prompt).toBe('pirate> ');
  expect(await answersOf(session.take('two'))).toEqual(['pirate 2']);
  expect(heard[1]).toEqual({
    adapter: 'pirate',
    messages: ['user: one', 'assistant: base 1', 'user: two'],
  });
});

test('two that are compared hear the same questions and their own answers', async () => {
  const { session, heard } = sessionOf();
  expect(toldBy(session.take('/compare pirate french'))).toBe('pirate and french answer');
  expect(await answersOf(session.take('one'))).toEqual(['pirate 1', 'french 2']);
  await answersOf(session.take('two'));
  expect(heard.slice(2).map(({ messages }) => messages)).toEqual([
    ['user: one', 'assistant: pirate 1', 'user: two'],
    ['user: one', 'assistant: french 2', 'user: two'],
  ]);
  expect(toldBy(session.take('/compare'))).toBe('pirate answers');
  expect(toldBy(session.take('/compare french'))).toBe('pirate and french answer');
});

test('a system prompt comes first and begins anew; /reset forgets', async () => {
  const { session, heard } = sessionOf();
  await answersOf(session.take('one'));
  session.take('/system be  brief');
  await answersOf(session.take('two'));
  session.take('/reset');
  await answersOf(session.take('three'));
  expect(heard.slice(1).map(({ messages }) => messages)).toEqual([
    ['system: be  brief', 'user: two'],
    ['system: be  brief', 'user: three'],
  ]);
});

test('a question that nobody answered is not remembered', async () => {
  const { session, heard } = sessionOf();
  session.take('/adapter broken');
  await expect(answersOf(session.take('one'))).rejects.toThrow('no');
  session.take('/adapter pirate');
  await answersOf(session.take('two'));
  expect(heard.at(-1)?.messages).toEqual(['user: two']);
});

test('what is wrong is told, and changes nothing', () => {
  const { session } = sessionOf();
  expect(toldBy(session.take('/adapter spanish'))).toContain('There is no adapter spanish: base,');
  expect(toldBy(session.take('/compare a b c'))).toContain('two');
  expect(toldBy(session.take('/compare pirate pirate'))).toContain('the same');
  expect(toldBy(session.take('/what'))).toContain('/adapter');
  expect(toldBy(session.take('  '))).toBe('');
  expect(toldBy(session.take('/quit'))).toBe('quit');
  expect(session.prompt).toBe('base> ');
});

test('columns: wrapped at words, of one width', () => {
  expect(wrap('a bb ccc', 4)).toEqual(['a bb', 'ccc']);
  expect(wrap('abcdefghij', 4)).toEqual(['abcd', 'efgh', 'ij']);
  expect(wrap('a\n\nb', 4)).toEqual(['a', '', 'b']);
  expect(columns(['one two three', 'x'], 19)).toEqual(['one two  | x', 'three    |']);
});
