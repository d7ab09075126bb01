/**
 * What each `format` of strings means here, as a pattern of the whole text.
 *
 * A format never lets through what its RFC forbids. Some hold less than it allows, in the one form
 * that everybody writes (an upper-case T in a date-time, host names of ASCII letters, 63 at most): those
 * are `narrow`. Used by string-rules.ts.
 */

interface Format {
  pattern: string;
  /** Texts may be of this format that the pattern leaves out. */
  narrow?: true;
}

const LEAP_YEAR = String.raw`(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)`;
const DATE = String.raw`(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))|${LEAP_YEAR}-02-29)`;
const TIME = String.raw`(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?`;
const OFFSET = String.raw`(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)`;

const BYTE = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
const IPV4 = String.raw`(?:${BYTE}\.){3}${BYTE}`;
const IPV6 = ipv6();

const LABEL = '[a-zA-Z0-9]+(?:-+[a-zA-Z0-9]+)*';
/** Begins with a letter, so that no name looks like an address. */
const TOP_LABEL = '[a-zA-Z][a-zA-Z0-9]*(?:-+[a-zA-Z0-9]+)*';
/** So short that each label is short enough too. */
const HOSTNAME = String.raw`(?=[^:/?#]{1,63}(?:[:/?#]|$))(?:${LABEL}\.)*${TOP_LABEL}`;

const ATOM = String.raw`[a-zA-Z0-9!#$%&'*+/=?^_\x60{|}~-]`;
const LOCAL = String.raw`(?=[^@]{1,64}@[^@]{1,63}$)${ATOM}+(?:\.${ATOM}+)*`;
const DOMAIN = String.raw`(?:${LABEL}\.)+[a-zA-Z]{2,}`;

const ESCAPED = '%[0-9A-Fa-f]{2}';
const PATH_CHARACTER = String.raw`(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|${ESCAPED})`;
const TAIL = String.raw`(?:\?(?:${PATH_CHARACTER}|[/?])*)?(?:#(?:${PATH_CHARACTER}|[/?])*)?`;
const PORT = String.raw`(?::(?:[1-9]\d{0,3}|[1-5]\d{4}))?`;
/** Without encoded international names, which can be wrong in ways of their own. */
const AUTHORITY = String.raw`(?![^:/?#]*xn--)(?:${HOSTNAME}|${IPV4})${PORT}`;
const PATH = String.raw`(?:/${PATH_CHARACTER}*)*`;
const URI = String.raw`(?!file:)[a-z][a-z0-9+.-]{0,15}:\/\/${AUTHORITY}${PATH}${TAIL}`;

const HEX = '[0-9a-fA-F]';
const UUID = String.raw`${HEX}{8}-${HEX}{4}-[1-8]${HEX}{3}-[89abAB]${HEX}{3}-${HEX}{12}`;
const JSON_POINTER = String.raw`(?:/(?:[^~/]|~[01])*)*`;
const BASE64 = '(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?';
const BASE64URL = '(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?';

export const STRING_FORMATS: Readonly<Record<string, Format>> = {
  date: { pattern: DATE },
  time: { pattern: `${TIME}${OFFSET}`, narrow: true },
  'date-time': { pattern: `${DATE}T${TIME}${OFFSET}`, narrow: true },
  'iso-time': { pattern: `${TIME}${OFFSET}?`, narrow: true },
  'iso-date-time': { pattern: `${DATE}T${TIME}${OFFSET}?`, narrow: true },
  duration: {
    pattern: String.raw`P(?:\d{1,9}W|(?=\d|T\d)(?:\d{1,9}Y(?:\d{1,9}M(?:\d{1,9}D)?)?|\d{1,9}M(?:\d{1,9}D)?|\d{1,9}D)?(?:T(?=\d)(?:\d{1,9}H(?:\d{1,9}M(?:\d{1,9}S)?)?|\d{1,9}M(?:\d{1,9}S)?|\d{1,9}S))?)`,
    narrow: true,
  },
  email: { pattern: `${LOCAL}@${DOMAIN}`, narrow: true },
  'idn-email': { pattern: `${LOCAL}@${DOMAIN}`, narrow: true },
  hostname: { pattern: HOSTNAME, narrow: true },
  'idn-hostname': { pattern: HOSTNAME, narrow: true },
  ipv4: { pattern: IPV4 },
  ipv6: { pattern: IPV6, narrow: true },
  uri: { pattern: URI, narrow: true },
  url: { pattern: URI, narrow: true },
  iri: { pattern: URI, narrow: true },
  'uri-reference': { pattern: `(?:${URI}|/${PATH_CHARACTER}*${PATH}${TAIL})`, narrow: true },
  'iri-reference': { pattern: `(?:${URI}|/${PATH_CHARACTER}*${PATH}${TAIL})`, narrow: true },
  uuid: { pattern: UUID, narrow: true },
  'json-pointer': { pattern: JSON_POINTER },
  'relative-json-pointer': { pattern: `(?:0|[1-9][0-9]{0,8})(?:#|${JSON_POINTER})`, narrow: true },
  byte: { pattern: BASE64 },
  base64: { pattern: BASE64 },
  base64url: { pattern: BASE64URL },
  jwt: {
    pattern: 'eyJ[A-Za-z0-9_-]{9,}\\.eyJ[A-Za-z0-9_-]{9,}\\.[A-Za-z0-9_-]{22,}',
    narrow: true,
  },
};

/** Names that zod writes beside a `pattern` that says it all; without one they say nothing exact. */
export const PATTERNED_FORMATS: ReadonlySet<string> = new Set([
  ...['includes', 'starts_with', 'ends_with', 'lowercase', 'uppercase', 'regex', 'emoji'],
  ...['nanoid', 'guid', 'cuid', 'cuid2', 'ulid', 'xid', 'ksuid', 'cidrv4', 'cidrv6', 'e164'],
  ...['mac', 'hex', 'credit_card', 'iban', 'currency_code', 'template_literal'],
]);

/** Hints for people, by OpenAPI's own words: they ask nothing of the text. */
export const HINT_FORMATS: ReadonlySet<string> = new Set(['password', 'binary']);

/** Formats of numbers: what OpenAPI adds. Infinite where only the type is meant. */
export const NUMBER_FORMATS: Readonly<Record<string, readonly [min: number, max: number]>> = {
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [-(2 ** 63), 2 ** 63 - 1024],
  uint64: [0, 2 ** 64 - 2048],
  safeint: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  float: [-3.4028234663852886e38, 3.4028234663852886e38],
  float32: [-3.4028234663852886e38, 3.4028234663852886e38],
  double: [-Infinity, Infinity],
  float64: [-Infinity, Infinity],
};

/** Eight groups, or fewer around one "::" (which stands for at least one of them). */
function ipv6(): string {
  const group = '[0-9a-fA-F]{1,4}';
  const forms = [`(?:${group}:){7}${group}`];
  for (let before = 0; before <= 7; before++) {
    const head = before === 0 ? '' : `${group}(?::${group}){${before - 1}}`;
    const most = 7 - before;
    const tail = most === 0 ? '' : `(?:${group}(?::${group}){0,${most - 1}})?`;
    forms.push(`${head}::${tail}`);
  }
  return `(?:${forms.join('|')})`;
}
