/** One random change somewhere in a JSON value: what may make it invalid, or another valid one. */
import type { Random } from '../random.js';

type Json = unknown;

export function mutated(value: Json, random: Random): Json {
  if (Array.isArray(value) && value.length > 0 && random.next() < 0.8) {
    const at = random.below(value.length);
    const roll = random.next();
    if (roll < 0.2) return value.filter((_, i) => i !== at);
    if (roll < 0.4) return [...value.slice(0, at), value[at] as Json, ...value.slice(at)];
    return value.map((item: Json, i) => (i === at ? mutated(item, random) : item));
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const entries = Object.entries(value);
    if (entries.length > 0 && random.next() < 0.8) {
      const at = random.below(entries.length);
      if (random.next() < 0.3) return Object.fromEntries(entries.filter((_, i) => i !== at));
      return Object.fromEntries(
        entries.map(([name, item], i) => [name, i === at ? mutated(item, random) : item]),
      );
    }
  }
  return scalar(value, random);
}

function scalar(value: Json, random: Random): Json {
  if (typeof value === 'number' && random.next() < 0.8) {
    return random.pick([value + 1, value - 1, value * 10, -value, value / 2, Math.round(value)]);
  }
  if (typeof value === 'string' && random.next() < 0.8) {
    const chars = [...value];
    const at = random.below(chars.length + 1);
    const char = random.pick([...'aZ09-_. "\\é\n', '😀']);
    const roll = random.next();
    if (roll < 0.35) chars.splice(at, 1);
    else if (roll < 0.7) chars.splice(at, 0, char);
    else chars.splice(at, 1, char);
    return chars.join('');
  }
  return random.pick([
    null,
    true,
    false,
    0,
    1,
    -1,
    2.5,
    '',
    'x',
    [],
    {},
    [null],
    { a: 1 },
  ] as Json[]);
}
