/**
 * Python's `re` patterns on JavaScript's engine, with a time limit.
 *
 * PEFT configurations carry regular expressions written for Python and read from files of unknown
 * origin: some backtrack for ever. Patterns are translated (never evaluated as code) and run in a
 * vm context that is terminated when the time is up. Syntax that JavaScript's engine cannot
 * express is refused by name rather than matched differently. Called by peft-targets.ts.
 */
import vm from 'node:vm';

/** `reason` continues a sentence that begins with the pattern. */
export class PythonRegexError extends Error {
  constructor(
    readonly kind: 'invalid' | 'unsupported' | 'timeout',
    readonly pattern: string,
    reason: string,
  ) {
    super(reason);
  }
}

interface Translated {
  pattern: string;
  source: string;
  flags: string;
}

const MAX_PATTERN_LENGTH = 20_000;
/** For one call over all names of a model, which takes about a millisecond when it is sane. */
const TIME_LIMIT_MS = 1000;

/** Which names each pattern matches as a whole: `re.fullmatch(pattern, name)`. */
export function fullMatches(pattern: string, names: readonly string[]): boolean[] {
  const regex = wrap(pattern, (source) => `^(?:${source})$`);
  return run([regex], names).map((index) => index === 0);
}

/** For each name the first pattern that `re.match`es from its beginning, or -1. */
export function firstMatches(patterns: readonly string[], names: readonly string[]): number[] {
  if (patterns.length === 0) return names.map(() => -1);
  return run(
    patterns.map((pattern) => wrap(pattern, (source) => `^(?:${source})`)),
    names,
  );
}

function wrap(pattern: string, around: (source: string) => string): Translated {
  const { source, flags } = translate(pattern);
  const wrapped = { pattern, source: around(source), flags };
  try {
    new RegExp(wrapped.source, flags);
  } catch (error) {
    throw new PythonRegexError('invalid', pattern, `is not valid: ${(error as Error).message}`);
  }
  return wrapped;
}

function run(regexes: Translated[], names: readonly string[]): number[] {
  // Plain data in, plain data out: JSON, so that nothing of either realm reaches the other.
  const context = vm.createContext(Object.create(null) as object);
  const input = JSON.stringify({ regexes: regexes.map((r) => [r.source, r.flags]), names });
  const code = `
    const { regexes, names } = JSON.parse(${JSON.stringify(input)});
    const compiled = regexes.map(([source, flags]) => new RegExp(source, flags));
    JSON.stringify(names.map((name) => compiled.findIndex((regex) => regex.test(name))));`;
  const pattern = regexes.map((regex) => regex.pattern).join(', ');
  try {
    const output = vm.runInContext(code, context, { timeout: TIME_LIMIT_MS }) as string;
    return JSON.parse(output) as number[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') {
      throw new PythonRegexError(
        'timeout',
        pattern,
        `takes more than ${TIME_LIMIT_MS} ms to match (it backtracks without end)`,
      );
    }
    throw new PythonRegexError('invalid', pattern, `cannot run: ${(error as Error).message}`);
  }
}

/** Letters that may follow a backslash in Python; all others are errors there. */
const SAME_ESCAPES = new Set([...'bBdDsSwWfnrtvxu']);

/** Python syntax -> JavaScript syntax, left to right, without understanding more than it must. */
export function translate(pattern: string): { source: string; flags: string } {
  const fail = (kind: 'invalid' | 'unsupported', reason: string): never => {
    throw new PythonRegexError(kind, pattern, reason);
  };
  if (pattern.length > MAX_PATTERN_LENGTH) {
    fail('unsupported', `is longer than ${MAX_PATTERN_LENGTH} characters`);
  }
  const flags = new Set<string>();
  let verbose = false;
  let i = 0;
  // Global flags, which Python allows at the start only: (?i), (?s), (?m), (?x), (?a), (?u).
  for (let m; (m = /^\(\?([aimsux]+)\)/.exec(pattern.slice(i))) !== null; i += m[0].length) {
    for (const flag of m[1] as string) {
      if (flag === 'x') verbose = true;
      // Names are ASCII, so (?a) and (?u) agree.
      else if (flag !== 'a' && flag !== 'u') flags.add(flag);
    }
  }
  let source = '';
  while (i < pattern.length) {
    const c = pattern[i] as string;
    if (c === '\\') {
      const escape = translateEscape(pattern, i, fail);
      source += escape.source;
      i += escape.length;
    } else if (c === '[') {
      const set = translateSet(pattern, i, fail);
      source += set.source;
      i += set.length;
    } else if (c === '(' && pattern[i + 1] === '?') {
      const group = translateGroup(pattern, i, fail);
      source += group.source;
      i += group.length;
    } else if (c === '{') {
      // {,n} is a quantifier in Python and literal text in JavaScript.
      const upTo = /^\{,(\d+)\}/.exec(pattern.slice(i));
      source += upTo === null ? c : `{0,${upTo[1]}}`;
      i += upTo === null ? 1 : upTo[0].length;
    } else if (verbose && /\s/.test(c)) {
      i++;
    } else if (verbose && c === '#') {
      const newline = pattern.indexOf('\n', i);
      i = newline < 0 ? pattern.length : newline;
    } else if (c === '+' && /[*+?}]/.test(pattern[i - 1] ?? '') && pattern[i - 2] !== '\\') {
      fail('unsupported', 'has a possessive quantifier, which is not supported');
    } else {
      source += c;
      i++;
    }
  }
  return { source, flags: [...flags].sort().join('') };
}

type Fail = (kind: 'invalid' | 'unsupported', reason: string) => never;
interface Piece {
  source: string;
  /** Of the Python text it stands for. */
  length: number;
}

function translateEscape(pattern: string, at: number, fail: Fail): Piece {
  const c = pattern[at + 1];
  if (c === undefined) return fail('invalid', 'ends in a backslash');
  if (c === 'A') return { source: '(?<![^])', length: 2 };
  if (c === 'Z') return { source: '(?![^])', length: 2 };
  if (c === 'a') return { source: '\\x07', length: 2 };
  if (/[A-Za-z]/.test(c) && !SAME_ESCAPES.has(c)) {
    return fail('unsupported', `has the escape \\${c}, which is not supported`);
  }
  if (c === 'x' || c === 'u') {
    const digits = c === 'x' ? 2 : 4;
    const hex = pattern.slice(at + 2, at + 2 + digits);
    if (!new RegExp(`^[0-9a-fA-F]{${digits}}$`).test(hex)) {
      return fail('invalid', `has an incomplete escape \\${c}`);
    }
    return { source: `\\${c}${hex}`, length: 2 + digits };
  }
  return { source: `\\${c}`, length: 2 };
}

/** A leading `]` is a member in Python and the end in JavaScript. */
function translateSet(pattern: string, at: number, fail: Fail): Piece {
  let i = at + 1;
  let source = '[';
  if (pattern[i] === '^') {
    source += '^';
    i++;
  }
  for (let first = true; ; first = false) {
    const c = pattern[i];
    if (c === undefined) return fail('invalid', 'has a [ that is never closed');
    if (c === ']' && !first) return { source: `${source}]`, length: i + 1 - at };
    if (c === '\\') {
      if (/[AZB]/.test(pattern[i + 1] ?? '')) {
        return fail('invalid', `has \\${pattern[i + 1]} inside [...]`);
      }
      const escape = translateEscape(pattern, i, fail);
      source += escape.source;
      i += escape.length;
    } else {
      source += c === ']' || c === '[' ? `\\${c}` : c;
      i++;
    }
  }
}

function translateGroup(pattern: string, at: number, fail: Fail): Piece {
  const rest = pattern.slice(at);
  const same = /^\(\?(?::|=|!|<=|<!)/.exec(rest);
  if (same !== null) return { source: same[0], length: same[0].length };
  const named = /^\(\?P<([A-Za-z_]\w*)>/.exec(rest);
  if (named !== null) return { source: `(?<${named[1]}>`, length: named[0].length };
  const reference = /^\(\?P=([A-Za-z_]\w*)\)/.exec(rest);
  if (reference !== null) return { source: `\\k<${reference[1]}>`, length: reference[0].length };
  const comment = /^\(\?#[^)]*\)/.exec(rest);
  if (comment !== null) return { source: '', length: comment[0].length };
  if (/^\(\?[aimsux]+\)/.test(rest)) {
    return fail('invalid', 'has flags such as (?i) elsewhere than at its start');
  }
  if (/^\(\?[aiLmsux]*-?[imsx]*:/.test(rest)) {
    return fail('unsupported', 'has flags for a part of it, (?i:...), which are not supported');
  }
  if (rest.startsWith('(?>')) return fail('unsupported', 'has an atomic group (?>...)');
  if (rest.startsWith('(?(')) return fail('unsupported', 'has a conditional group (?(1)...)');
  return fail('invalid', `has an unknown group ${rest.slice(0, 5)}`);
}
