import { describe, expect, it } from 'vitest';
import { StopStrings } from '../../../worker/output/stop-strings.js';
import { Random } from '../random.js';

/** The definition: character by character, the first moment at which a stop string is complete. */
function reference(stops: string[], text: string): { text: string; stop: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    const longest = ending.sort((a, b) => b.length - a.length)[0];
    if (longest !== undefined) return { text: text.slice(0, end - longest.length), stop: longest };
  }
  return { text, stop: null };
}

/** The longest ending of `text` that begins a stop string. */
function mustHold(stops: string[], text: string): number {
  for (let length = text.length; length > 0; length--) {
    const ending = text.slice(text.length - length);
    if (stops.some((stop) => stop.length > length && stop.startsWith(ending))) return length;
  }
  return 0;
}

describe('StopStrings', () => {
  it('finds what the definition finds and holds back no more than it must', () => {
    let hits = 0;
    for (let seed = 0; seed < 3000; seed++) {
      const random = new Random(seed);
      const word = (length: number) =>
        Array.from({ length }, () => random.pick(['a', 'b', 'c', '\n', '😀'])).join('');
      const stops = Array.from({ length: 1 + random.below(5) }, () => word(1 + random.below(5)));
      const watch = new StopStrings(stops);
      let seen = '';
      let given = '';
      let hit: string | null = null;
      for (let i = 0; i < 12 && hit === null; i++) {
        const piece = word(random.below(4));
        seen += piece;
        const { text, stop } = watch.push(piece);
        given += text;
        hit = stop;
        const held = mustHold(stops, seen);
        if (hit === null) expect(given, `seed ${seed}`).toBe(seen.slice(0, seen.length - held));
      }
      if (hit === null) given += watch.flush();
      else hits++;
      expect({ text: given, stop: hit }, `seed ${seed}`).toEqual(reference(stops, seen));
    }
    expect(hits).toBeGreaterThan(1000);
  });

  it('spans pieces, and goes on where a beginning leads nowhere', () => {
    const watch = new StopStrings(['</answer>']);
    expect(watch.push('ok </ans')).toEqual({ text: 'ok ', stop: null, rest: '' });
    expect(watch.push('we')).toEqual({ text: '', stop: null, rest: '' });
    expect(watch.push('ll </answer> more')).toEqual({
      ...{ text: '</answell ', stop: '</answer>', rest: ' more' },
    });
  });

  it('gives out what it held at the end', () => {
    const watch = new StopStrings(['STOP']);
    expect(watch.push('abcSTO')).toEqual({ text: 'abc', stop: null, rest: '' });
    expect(watch.flush()).toBe('STO');
    expect(watch.flush()).toBe('');
  });

  it('takes a thousand stop strings in linear time', () => {
    const watch = new StopStrings(Array.from({ length: 1000 }, (_, i) => `${'x'.repeat(200)}${i}`));
    const start = performance.now();
    for (let i = 0; i < 20_000; i++) watch.push('xxxx ');
    expect(performance.now() - start).toBeLessThan(2000);
  });
});
