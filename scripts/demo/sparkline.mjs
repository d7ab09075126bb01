// A row of bars for a series of numbers, one character each.

// The lowest is no blank: a row that starts with zeros would seem to be indented.
const BARS = '▁▂▃▄▅▆▇█';

/** At most `width` bars; when there are more numbers, each bar is the mean of its share. */
export function sparkline(values, width) {
  if (values.length === 0) return '';
  const count = Math.min(width, values.length);
  const means = Array.from({ length: count }, (_, i) => {
    const from = Math.floor((i * values.length) / count);
    const to = Math.max(from + 1, Math.floor(((i + 1) * values.length) / count));
    const share = values.slice(from, to);
    return share.reduce((sum, value) => sum + value, 0) / share.length;
  });
  const top = Math.max(...means, 1);
  return means.map((value) => BARS[Math.round((value / top) * (BARS.length - 1))]).join('');
}
