#!/usr/bin/env node
// The `lorax-js` command, published as dist/cli.mjs: finds the command, parses its options, runs it.
// Exit codes: 0 done, 1 the answer is no or it failed, 2 wrong usage.
import { LoraxError } from '../errors.js';
import { COMMANDS } from './commands.js';
import { commandHelp, parseCommand } from './command-line.js';
import { table } from './format.js';
import { Terminal } from './terminal.js';

function help(): string[] {
  const rows = COMMANDS.map(({ name, summary }) => [`  ${name}`, summary]);
  return [
    'usage: lorax-js <command> [options]',
    '',
    ...table(rows),
    '',
    'lorax-js <command> --help says what it takes; --json answers with one JSON document.',
  ];
}

async function main(args: readonly string[]): Promise<number> {
  const { stdout, stderr, env } = process;
  const terminal = new Terminal({ stdout, stderr, env }, args.includes('--json'));
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    help().forEach((line) => (name === undefined ? terminal.note(line) : terminal.line(line)));
    return name === undefined ? 2 : 0;
  }
  try {
    const command = COMMANDS.find((each) => each.name === name);
    if (command === undefined) {
      const message = `There is no command ${JSON.stringify(name)}. See lorax-js --help.`;
      throw new LoraxError('INVALID_OPTIONS', message, { data: { field: 'command' } });
    }
    const parsed = parseCommand(command, rest);
    if (parsed.values.help === true) {
      terminal.line(commandHelp(command));
      return 0;
    }
    return await command.run(parsed, terminal);
  } catch (error) {
    if (!LoraxError.isInstance(error)) throw error;
    const { code, message, data } = error;
    if (terminal.json) terminal.line(JSON.stringify({ error: { code, message, data } }));
    else terminal.note(`${terminal.styleNote('red', 'lorax-js:')} ${message}`);
    return code === 'INVALID_OPTIONS' ? 2 : 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
