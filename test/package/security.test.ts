// docs/security.md names a test for every threat: that they are there.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const rows = readFileSync(`${root}/docs/security.md`, 'utf8')
  .split('\n')
  .filter((line) => /^\| (?!Threat|---)/.test(line))
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .map(([, threat = '', , tests = '']) => ({ threat, tests }));

test('there are threats', () => expect(rows.length).toBeGreaterThan(15));

test.each(rows)('$threat', ({ tests }) => {
  const named = tests.split(/; (?=`)/).map((each) => /`([^`]+)` (.*)/.exec(each.trim()));
  expect(named.length).toBeGreaterThan(0);
  for (const match of named) {
    expect(match, tests).not.toBeNull();
    const [, file = '', titles = ''] = match as RegExpExecArray;
    expect(existsSync(`${root}/${file}`), file).toBe(true);
    const text = readFileSync(`${root}/${file}`, 'utf8');
    const quoted = [...titles.matchAll(/"([^"]+)"/g)].map(([, title = '']) => title);
    expect(quoted.length).toBeGreaterThan(0);
    for (const title of quoted) expect(text, `${file}: ${title}`).toContain(title);
  }
});
