// How flags become values, what is said of wrong ones, and when colours and progress are written.
import { describe, expect, test } from 'vitest';
import { commandHelp, parseBytes, parseCommand, type Command } from '../../src/cli/command-line.js';
import { parseGpus } from '../../src/cli/devices.js';
import { formatBytes, formatCount, table } from '../../src/cli/format.js';
import { Terminal } from '../../src/cli/terminal.js';

const command: Command = {
  name: 'toast',
  positionals: '<bread>',
  minPositionals: 1,
  maxPositionals: 2,
  summary: 'toasts',
  options: {
    slices: { type: 'number', help: 'how many' },
    memory: { type: 'bytes', help: 'of the toaster' },
    jam: { type: 'string', multiple: true, value: '<kind>', help: 'on top' },
    butter: { type: 'boolean', short: 'b', help: 'or not' },
  },
  run: () => Promise.resolve(0),
};
const parse = (...args: string[]) => parseCommand(command, args);
const faultOf = (...args: string[]) => {
  try {
    parse(...args);
  } catch (error) {
    return error as { code: string; message: string; data: { field: string } };
  }
  throw new Error('was accepted');
};

test('flags of every type, in both forms', () => {
  expect(
    parse(
      'rye',
      '--slices=-3',
      '--memory',
      '2GiB',
      '--jam',
      'fig',
      '--jam=plum',
      '-b',
      '--no-json',
    ),
  ).toEqual({
    positionals: ['rye'],
    values: { slices: -3, memory: 2 * 2 ** 30, jam: ['fig', 'plum'], butter: true, json: false },
  });
  expect(parse('rye', '--slices', '-3').values).toEqual({ slices: -3 });
});

test.each([
  [['rye', '--slises', '2'], '--slises', 'Did you mean "--slices"?'],
  [['rye', '--slices'], '--slices', '--slices needs a value: --slices <n>.'],
  [['rye', '--jam', '--butter'], '--jam', '--jam needs a value: --jam <kind>.'],
  [['rye', '--slices', 'two'], '--slices', 'must be a number'],
  [['rye', '--memory', '2 loaves'], '--memory', '--memory must be a size such as 512MiB'],
  [['rye', '--butter=no'], '--butter', 'takes no value'],
  [[], 'arguments', 'usage: lorax-js toast <bread>'],
  [['rye', 'oat', 'corn'], 'arguments', '"corn" is one argument too many'],
])('%j is refused with the flag at fault', (args, field, message) => {
  const error = faultOf(...args);
  expect(error.code).toBe('INVALID_OPTIONS');
  expect(error.data.field).toBe(field);
  expect(error.message).toContain(message);
});

test('help asks for no arguments and shows every option', () => {
  expect(parse('--help').values).toEqual({ help: true });
  const help = commandHelp(command);
  for (const text of ['--slices <n>', '--memory <size>', '--jam <kind> ...', '-b, --butter']) {
    expect(help).toContain(text);
  }
});

test.each([
  ['1000', 1000],
  ['1e9', 1e9],
  ['1.5KB', 1500],
  ['2 MiB', 2 * 2 ** 20],
  ['3g', 3e9],
  ['4Ti', 4 * 2 ** 40],
])('%s is %d bytes', (text, bytes) => expect(parseBytes(text, '--memory')).toBe(bytes));

test('sizes, counts and tables', () => {
  expect([0, 1023, 1536, 10.25 * 2 ** 20, 200 * 2 ** 30].map(formatBytes)).toEqual([
    ...['0 B', '1023 B', '1.50 KiB', '10.3 MiB', '200 GiB'],
  ]);
  expect([7, 1234567].map(formatCount)).toEqual(['7', '1,234,567']);
  expect(
    table([
      ['a', 'bb'],
      ['ccc', ''],
    ]),
  ).toEqual(['a    bb', 'ccc']);
});

test("nvidia-smi's lines", () => {
  expect(parseGpus('NVIDIA H200, 143771, 143000, 570.86\n\n')).toEqual([
    {
      name: 'NVIDIA H200',
      totalBytes: 143771 * 2 ** 20,
      freeBytes: 143000 * 2 ** 20,
      driver: '570.86',
    },
  ]);
});

describe('the terminal', () => {
  function terminalOf({ isTTY = true, json = false, env = {} } = {}) {
    const written = { out: '', err: '' };
    const stdout = { isTTY, write: (text: string) => (written.out += text) };
    const stderr = { isTTY, columns: 80, write: (text: string) => (written.err += text) };
    return { written, terminal: new Terminal({ stdout, stderr, env }, json) };
  }

  test.each([
    [{}, true],
    [{ isTTY: false }, false],
    [{ json: true }, false],
    [{ env: { NO_COLOR: '1' } }, false],
    [{ env: { TERM: 'dumb' } }, false],
  ])('%j: colours %s', (how, coloured) => {
    const { terminal } = terminalOf(how);
    expect(terminal.style('red', 'x')).toBe(coloured ? '\u001b[31mx\u001b[39m' : 'x');
    expect(terminal.styleNote('red', 'x') === 'x').toBe(!coloured);
  });

  test('progress is one line that goes away before anything else is written', () => {
    const { terminal, written } = terminalOf();
    terminal.progress('model', 2 ** 20, 2 ** 21);
    const bar = `[${'#'.repeat(12)}${'.'.repeat(12)}]`;
    expect(written.err).toBe(`\r\u001b[K${bar} 50 % of 2.00 MiB  model`);
    terminal.line('done');
    expect(written.err.endsWith('\r\u001b[K')).toBe(true);
    expect(written.out).toBe('done\n');
  });

  test.each([{ isTTY: false }, { json: true }])('%j: no progress', (how) => {
    const { terminal, written } = terminalOf(how);
    terminal.progress('model', 1, 2);
    terminal.clearProgress();
    expect(written.err).toBe('');
  });
});
