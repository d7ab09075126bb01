/** Texts beside one another, wrapped at words. Used where two answers are compared. */

export function columns(texts: readonly string[], width: number): string[] {
  const gap = ' | ';
  const each = Math.max(8, Math.floor((width - gap.length * (texts.length - 1)) / texts.length));
  const wrapped = texts.map((text) => wrap(text, each));
  const height = Math.max(...wrapped.map((lines) => lines.length));
  return Array.from({ length: height }, (_, row) =>
    wrapped
      .map((lines) => (lines[row] ?? '').padEnd(each))
      .join(gap)
      .trimEnd(),
  );
}

export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split('\n')) {
    let line = '';
    for (const word of paragraph.split(' ')) {
      let rest = word;
      const joined = line === '' ? rest : `${line} ${rest}`;
      if (joined.length <= width) {
        line = joined;
        continue;
      }
      if (line !== '') lines.push(line);
      while (rest.length > width) {
        lines.push(rest.slice(0, width));
        rest = rest.slice(width);
      }
      line = rest;
    }
    lines.push(line);
  }
  return lines;
}
