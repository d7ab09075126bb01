/**
 * `lorax-js chat`: a conversation in the terminal, with adapters to switch between and to compare.
 *
 * Lines come from a terminal or a pipe; with --json each answer is one document on a line of its own.
 */
import { createInterface } from 'node:readline/promises';
import { checkNumber } from '../../check-shape.js';
import { LoraxError } from '../../errors.js';
import type { Sampling } from '../../types.js';
import { ChatSession, HELP, type ChatAnswer } from '../chat/chat-session.js';
import { columns } from '../chat/columns.js';
import type { Command, OptionValues } from '../command-line.js';
import { ENGINE_OPTIONS, openEngine } from '../local-engine.js';
import type { Terminal } from '../terminal.js';

const REDRAW_MS = 60;

export const chat: Command = {
  name: 'chat',
  positionals: '<model>',
  minPositionals: 1,
  summary: 'talk to a model and its adapters: /adapter x, /compare a b',
  options: {
    ...ENGINE_OPTIONS,
    'max-tokens': { type: 'number', help: 'of an answer (default 512)' },
    temperature: { type: 'number', help: 'default: the model’s own' },
    seed: { type: 'number', help: 'default: drawn' },
  },
  async run({ positionals, values }, terminal) {
    const { engine, names } = openEngine(positionals[0] as string, values, terminal);
    await using _ = engine;
    const { deviceDescription } = await engine.ready();
    terminal.clearProgress();
    const session = new ChatSession({ engine, names, sampling: samplingOf(values) });
    const isTerminal = process.stdin.isTTY === true && !terminal.json;
    if (isTerminal) {
      terminal.note(`${deviceDescription}; ${names.length} adapters`);
      HELP.forEach((line) => terminal.note(line));
    }
    const input = createInterface({
      input: process.stdin,
      ...(isTerminal ? { output: process.stderr, prompt: session.prompt } : {}),
    });
    if (isTerminal) input.prompt();
    for await (const line of input) {
      const step = session.take(line);
      if (step.kind === 'quit') break;
      if (step.kind === 'told') step.lines.forEach((each) => terminal.note(each));
      else await show(step.answers, terminal);
      if (isTerminal) {
        input.setPrompt(session.prompt);
        input.prompt();
      }
    }
    input.close();
    return 0;
  },
};

function samplingOf(values: OptionValues): Sampling {
  const { temperature, seed } = values;
  const maxOutputTokens =
    checkNumber(values['max-tokens'], '--max-tokens', { min: 1, max: 1e9, integer: true }) ?? 512;
  return {
    maxOutputTokens,
    ...(typeof temperature === 'number' ? { temperature } : {}),
    ...(typeof seed === 'number' ? { seed } : {}),
  };
}

async function show(answers: readonly ChatAnswer[], terminal: Terminal): Promise<void> {
  const [only] = answers;
  if (terminal.json) {
    const read = async ({ adapter, text }: ChatAnswer) => {
      const whole = { text: '' };
      const problem = await collect(text, (piece) => (whole.text += piece));
      return { adapter, text: whole.text, ...(problem === undefined ? {} : { error: problem }) };
    };
    terminal.line(JSON.stringify({ answers: await Promise.all(answers.map(read)) }));
  } else if (answers.length === 1 && only !== undefined) {
    const problem = await collect(only.text, (piece) => terminal.write(piece));
    terminal.line();
    if (problem !== undefined) terminal.note(problem);
  } else {
    await compare(answers, terminal);
  }
}

/** Both at once; drawn anew as they grow where that can be seen, once where it cannot. */
async function compare(answers: readonly ChatAnswer[], terminal: Terminal): Promise<void> {
  const texts = answers.map(() => '');
  const problems: string[] = [];
  const block = terminal.block();
  const draw = () => {
    const heads = answers.map(({ adapter }, i) => `[${adapter}]\n${texts[i]}`);
    return columns(heads, terminal.columns);
  };
  const timer = setInterval(() => block.draw(draw()), REDRAW_MS);
  try {
    await Promise.all(
      answers.map(async ({ text }, i) => {
        const problem = await collect(text, (piece) => (texts[i] += piece));
        if (problem !== undefined) problems.push(problem);
      }),
    );
  } finally {
    clearInterval(timer);
  }
  block.end(draw());
  problems.forEach((problem) => terminal.note(problem));
}

/** What went wrong, if it did: a conversation goes on after it. */
async function collect(
  text: AsyncIterable<string>,
  onPiece: (piece: string) => void,
): Promise<string | undefined> {
  try {
    for await (const piece of text) onPiece(piece);
    return undefined;
  } catch (error) {
    if (!LoraxError.isInstance(error)) throw error;
    return `${error.code}: ${error.message}`;
  }
}
