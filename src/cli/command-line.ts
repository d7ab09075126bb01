/**
 * Commands and their options: one table each, from which parsing, help and (for `serve`) environment
 * and configuration file go.
 *
 * Parsing throws INVALID_OPTIONS that names the flag. Called by main.ts.
 */
import { parseArgs } from 'node:util';
import { checkNumber, invalidOptions, unknownKey } from '../check-shape.js';
import type { Terminal } from './terminal.js';

export interface OptionSpec {
  /** `bytes`: a number with an optional KB, MB, GB, TB, or KiB, MiB, ... */
  type: 'string' | 'boolean' | 'number' | 'bytes';
  /** May be given several times. */
  multiple?: boolean;
  short?: string;
  /** What stands for the value in help: "<dir>". */
  value?: string;
  help: string;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;
export type OptionValue = string | boolean | number | string[];
export type OptionValues = Readonly<Record<string, OptionValue | undefined>>;

export interface CommandArguments {
  positionals: readonly string[];
  values: OptionValues;
}

export interface Command {
  name: string;
  /** After the name: "<adapter>", "[directory...]". */
  positionals?: string;
  minPositionals?: number;
  maxPositionals?: number;
  summary: string;
  options: OptionSpecs;
  /** The exit code. */
  run(args: CommandArguments, terminal: Terminal): Promise<number>;
}

/** What every command takes. */
export const COMMON_OPTIONS = {
  json: { type: 'boolean', help: 'one JSON document on stdout, nothing else' },
  help: { type: 'boolean', short: 'h', help: 'what this command takes' },
} as const satisfies OptionSpecs;

export function parseCommand(command: Command, args: readonly string[]): CommandArguments {
  const specs: OptionSpecs = { ...command.options, ...COMMON_OPTIONS };
  const { values, positionals } = parseFlags(specs, args);
  const { minPositionals = 0, maxPositionals = minPositionals } = command;
  if (values.help !== true) {
    if (positionals.length < minPositionals) {
      throw invalidOptions('arguments', `usage: ${usageLine(command)}`);
    }
    if (positionals.length > maxPositionals) {
      const extra = positionals[maxPositionals] as string;
      throw invalidOptions(
        'arguments',
        `${JSON.stringify(extra)} is one argument too many. usage: ${usageLine(command)}`,
        extra,
      );
    }
  }
  return { values, positionals };
}

function parseFlags(specs: OptionSpecs, args: readonly string[]): CommandArguments {
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, { type, multiple = false, short }]) => [
      name,
      {
        type: type === 'boolean' ? ('boolean' as const) : ('string' as const),
        multiple,
        ...(short === undefined ? {} : { short }),
      },
    ]),
  );
  // Not strict: node's messages know nothing of what was meant.
  const { tokens } = parseArgs({
    ...{ args: [...args], options, strict: false },
    ...{ allowPositionals: true, tokens: true, allowNegative: true },
  });
  const values: Record<string, OptionValue> = {};
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const { name, rawName } = token;
    const negated = rawName.startsWith('--no-') && !(rawName.slice('--'.length) in specs);
    const key = negated ? rawName.slice('--no-'.length) : name;
    const spec = specs[key];
    if (spec === undefined) throw unknownKey(rawName, Object.keys(specs).map(flag));
    if (spec.type === 'boolean') {
      if (token.value !== undefined) {
        throw invalidOptions(rawName, `${rawName} takes no value: leave out =${token.value}.`);
      }
      values[key] = !negated;
      continue;
    }
    // "-5" is a value; "--x" and "-x" are the next option.
    if (token.value === undefined || (!token.inlineValue && /^-[^\d]/.test(token.value))) {
      throw invalidOptions(rawName, `${rawName} needs a value: ${rawName} ${valueOf(spec)}.`);
    }
    const value = convertOption(spec, token.value, rawName);
    if (spec.multiple === true) {
      const before = values[key];
      values[key] = [...(Array.isArray(before) ? before : []), String(value)];
    } else {
      values[key] = value;
    }
  }
  return { values, positionals };
}

/** Text as flags and the environment have it -> the option's value. `field` names it in errors. */
export function convertOption(spec: OptionSpec, text: string, field: string): OptionValue {
  switch (spec.type) {
    case 'string':
      return text;
    case 'boolean':
      if (/^(1|true|yes|on)$/i.test(text)) return true;
      if (/^(0|false|no|off)$/i.test(text)) return false;
      throw invalidOptions(field, `${field} must be true or false, not ${text}.`, text);
    case 'number': {
      const number = text.trim() === '' ? Number.NaN : Number(text);
      const range = { min: -Number.MAX_VALUE, max: Number.MAX_VALUE };
      return checkNumber(Number.isNaN(number) ? text : number, field, range) as number;
    }
    case 'bytes':
      return parseBytes(text, field);
  }
}

const UNITS = ['', 'k', 'm', 'g', 't'];

/** "512MiB", "2 GB", "1e9". */
export function parseBytes(text: string, field: string): number {
  const match = /^\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)(i?)b?\s*$/i.exec(text);
  if (match === null) {
    const message = `${field} must be a size such as 512MiB, 2GB or 1000000, not ${text}.`;
    throw invalidOptions(field, message, text);
  }
  const [, digits, unit = '', binary] = match;
  const base = binary === '' ? 1000 : 1024;
  return Math.round(Number(digits) * base ** UNITS.indexOf(unit.toLowerCase()));
}

const flag = (name: string) => `--${name}`;
const valueOf = ({ type, value }: OptionSpec) =>
  value ?? { string: '<text>', number: '<n>', bytes: '<size>', boolean: '' }[type];

export function usageLine({ name, positionals }: Command): string {
  return `lorax-js ${name}${positionals === undefined ? '' : ` ${positionals}`} [options]`;
}

export function commandHelp(command: Command): string {
  const rows = Object.entries({ ...command.options, ...COMMON_OPTIONS }).map(
    ([name, spec]: [string, OptionSpec]) => {
      const short = spec.short === undefined ? '    ' : `-${spec.short}, `;
      const repeat = spec.multiple === true ? ' ...' : '';
      return [`  ${short}--${name} ${valueOf(spec)}`.trimEnd() + repeat, spec.help] as const;
    },
  );
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const options = rows.map(([left, help]) => `${left.padEnd(width)}${help}`);
  return [`usage: ${usageLine(command)}`, '', command.summary, '', 'options:', ...options].join(
    '\n',
  );
}
