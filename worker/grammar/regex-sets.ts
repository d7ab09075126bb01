/**
 * What ECMAScript's class escapes stand for, as sets of code points.
 *
 * \p{…} is asked of JavaScript's own engine, so that it means what the engine's Unicode version says;
 * each property once. Called by regex-parser.ts.
 */
import { CodePoints, type Range } from './code-points.js';

export const DIGITS = CodePoints.ofText('0123456789');
export const WORDS = CodePoints.of([
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
]);
/** LineTerminator: what `.` leaves out. */
export const LINE_ENDS = CodePoints.ofText('\n\r\u2028\u2029');
/** WhiteSpace and LineTerminator. */
export const SPACES = CodePoints.of([
  [0x9, 0xd],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
]);

const properties = new Map<string, CodePoints>();

/** `name`: what stands in \p{…}, known to be one. */
export function propertySet(name: string): CodePoints {
  const known = properties.get(name);
  if (known !== undefined) return known;
  // One pass over all characters as one text: a match is a run of members.
  const runs = new RegExp(`\\p{${name}}+`, 'gu');
  const ranges: Range[] = [];
  for (const [first, last] of PLANES) {
    const width = first > 0xffff ? 2 : 1; // UTF-16 units of a character
    for (const { index, 0: run } of textOf(first, last).matchAll(runs)) {
      const start = first + index / width;
      ranges.push([start, start + run.length / width - 1]);
    }
  }
  const set = CodePoints.of(ranges);
  properties.set(name, set);
  return set;
}

/** Every scalar value; none of these spans holds a surrogate or crosses from one unit to two. */
const PLANES: Range[] = [
  [0, 0xd7ff],
  [0xe000, 0xffff],
  ...Array.from({ length: 16 }, (_, i): Range => [(i + 1) << 16, ((i + 1) << 16) + 0xffff]),
];

/** In UTF-16 by hand: a million calls of String.fromCodePoint take ten times as long. */
function textOf(first: number, last: number): string {
  const width = first > 0xffff ? 2 : 1;
  const units = new Uint16Array((last - first + 1) * width);
  for (let codePoint = first, at = 0; codePoint <= last; codePoint++, at += width) {
    units[at] = width === 1 ? codePoint : 0xd7c0 + (codePoint >> 10);
    if (width === 2) units[at + 1] = 0xdc00 + (codePoint & 0x3ff);
  }
  return Buffer.from(units.buffer).toString('utf16le');
}
