import { expect, it } from 'vitest';
import { sparkline } from '../../scripts/demo/sparkline.mjs';

it('draws one visible bar per number, from the lowest to the highest', () => {
  expect(sparkline([0, 0, 7, 14], 40)).toBe('▁▁▅█');
  expect(sparkline([0, 0, 0], 40)).toBe('▁▁▁');
  expect(sparkline([], 40)).toBe('');
});

it('draws the means of equal shares when there are more numbers than bars', () => {
  expect(sparkline([0, 0, 4, 10, 14, 14], 3)).toBe('▁▅█');
  expect(
    sparkline(
      Array.from({ length: 1000 }, () => 1),
      40,
    ),
  ).toBe('█'.repeat(40));
});
