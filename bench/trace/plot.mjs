// Draws a run of bench/trace.mjs: throughput beside what is predicted, first tokens, and of each case the
// engine's state over time. Used by bench/trace.mjs.
import { writeFileSync } from 'node:fs';

const COLORS = ['#0ea5e9', '#d946ef', '#f59e0b', '#10b981', '#6366f1', '#ef4444'];
const PAGES = { adapter: '#d946ef', kv: '#0ea5e9', cold: '#bae6fd', retiring: '#f59e0b' };
const [WIDTH, HEIGHT, GAP, LEFT, TOP] = [340, 200, 64, 56, 64];

/** Returns the file. */
export function plotTrace(csv, cases, machine) {
  const panels = [
    throughput(cases),
    firstTokens(cases),
    ...cases.flatMap((each) => [requestsOverTime(each, cases), pagesOverTime(each)]),
  ];
  const rows = Math.ceil(panels.length / 2);
  const width = LEFT + 2 * (WIDTH + GAP) + 40;
  const height = TOP + rows * (HEIGHT + GAP);
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" ` +
      `font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#fff"/>`,
    label(LEFT, 20, `S-LoRA's trace, ${cases.map((c) => c.adapters).join(' and ')} adapters`, BOLD),
    label(LEFT, 36, machine),
    ...panels.map((panel, i) => {
      const x = LEFT + (i % 2) * (WIDTH + GAP + 20);
      const y = TOP + Math.floor(i / 2) * (HEIGHT + GAP);
      return `<g transform="translate(${x},${y})">${panel}</g>`;
    }),
    '</svg>',
  ];
  const file = csv.replace(/(\.csv)?$/, '.svg');
  writeFileSync(file, `${out.join('\n')}\n`);
  return file;
}

const BOLD = 'font-weight="600"';
const WHITE = 'text-anchor="middle" style="fill:#fff"';
const escaped = (value) => String(value).replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const label = (x, y, value, more = '') =>
  `<text x="${x}" y="${y}" font-size="11" fill="#0f172a" ${more}>${escaped(value)}</text>`;

/** Axes and what lies between; `draw` gets the scales. */
function chart(title, { mostX, mostY, unitX = '' }, draw) {
  const x = (value) => (WIDTH * value) / mostX;
  const y = (value) => HEIGHT - (HEIGHT * value) / (mostY * 1.05);
  const out = [label(0, -8, title, BOLD)];
  for (const value of ticks(mostY)) {
    out.push(
      `<line x1="0" x2="${WIDTH}" y1="${y(value)}" y2="${y(value)}" stroke="#e2e8f0"/>`,
      label(-6, y(value) + 4, value, 'text-anchor="end"'),
    );
  }
  for (const value of unitX === '' ? [] : ticks(mostX)) {
    out.push(label(x(value), HEIGHT + 16, value, 'text-anchor="middle"'));
  }
  if (unitX !== '') out.push(label(WIDTH, HEIGHT + 30, unitX, 'text-anchor="end"'));
  return [...out, ...draw(x, y)].join('\n');
}

function ticks(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  const count = Math.floor(most / step);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

const line = (points, color) =>
  `<polyline fill="none" stroke="${color}" stroke-width="1.5" points="` +
  `${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(' ')}"/>`;

const legend = (entries) =>
  entries.flatMap(([name, color], i) => [
    `<rect x="${i * 90}" y="${HEIGHT + 36}" width="10" height="10" fill="${color}"/>`,
    label(i * 90 + 14, HEIGHT + 45, name),
  ]);

function throughput(cases) {
  const mostY = Math.max(
    ...cases.flatMap((c) => [c.figures.requestsPerSecond, c.prediction.requestsPerSecond]),
  );
  const title = 'Requests/s; the line: predicted from bytes';
  return chart(title, { mostX: cases.length, mostY }, (x, y) =>
    cases.flatMap((each, i) => {
      const { requestsPerSecond } = each.figures;
      const predicted = y(each.prediction.requestsPerSecond);
      const [left, width] = [x(i + 0.2), x(0.6)];
      return [
        `<rect x="${left}" y="${y(requestsPerSecond)}" width="${width}" ` +
          `height="${y(0) - y(requestsPerSecond)}" fill="${COLORS[i % COLORS.length]}"/>`,
        `<line x1="${left - 6}" x2="${left + width + 6}" y1="${predicted}" y2="${predicted}" ` +
          `stroke="#0f172a" stroke-width="2"/>`,
        label(left + width / 2, HEIGHT + 16, `${each.adapters} adapters`, 'text-anchor="middle"'),
        label(
          left + width / 2,
          HEIGHT + 30,
          `${each.ratio.toFixed(3)}x, predicted ${each.predictedRatio.toFixed(3)}x`,
          'text-anchor="middle"',
        ),
        label(left + width / 2, y(requestsPerSecond) + 16, requestsPerSecond.toFixed(2), WHITE),
      ];
    }),
  );
}

/** Shares of requests whose first token came within so many seconds. */
function firstTokens(cases) {
  const times = cases.map((each) =>
    each.run.requests
      .filter((request) => request.failure === '')
      .map((request) => request.firstSeconds - request.atSeconds)
      .sort((a, b) => a - b),
  );
  const mostX = Math.max(...times.map((sorted) => sorted.at(-1)));
  const title = 'Requests with a first token within, %';
  return chart(title, { mostX, mostY: 100, unitX: 's' }, (x, y) => [
    ...times.map((sorted, i) => {
      const points = Array.from({ length: 201 }, (_, n) => {
        const at = Math.round((n / 200) * (sorted.length - 1));
        return [x(sorted[at]), y((100 * (at + 1)) / sorted.length)];
      });
      return line([[x(sorted[0]), y(0)], ...points], COLORS[i % COLORS.length]);
    }),
    ...legend(cases.map((each, i) => [`${each.adapters}`, COLORS[i % COLORS.length]])),
  ]);
}

function requestsOverTime({ adapters, run }, cases) {
  const all = cases.flatMap((each) => each.run.states);
  const mostX = Math.max(...run.states.map((state) => state.second));
  const mostY = Math.max(1, ...all.flatMap((state) => [state.running, state.waiting]));
  const title = `${adapters} adapters: requests`;
  return chart(title, { mostX, mostY, unitX: 's' }, (x, y) => [
    ...['running', 'waiting'].map((key, i) =>
      line(
        run.states.map((state) => [x(state.second), y(state[key])]),
        COLORS[4 + i],
      ),
    ),
    ...legend([
      ['running', COLORS[4]],
      ['waiting', COLORS[5]],
    ]),
  ]);
}

/** Stacked. */
function pagesOverTime({ adapters, run }) {
  const mostX = Math.max(...run.states.map((state) => state.second));
  const kinds = Object.keys(PAGES);
  return chart(
    `${adapters} adapters: pages of the pool`,
    { mostX, mostY: run.info.numPages, unitX: 's' },
    (x, y) => {
      const sums = run.states.map(() => 0);
      const areas = kinds.map((kind) => {
        const below = [...sums];
        run.states.forEach((state, i) => (sums[i] += state[kind]));
        const point = (state, value) => `${x(state.second).toFixed(1)},${y(value).toFixed(1)}`;
        const up = run.states.map((state, i) => point(state, sums[i]));
        const down = run.states.map((state, i) => point(state, below[i])).reverse();
        return `<polygon fill="${PAGES[kind]}" points="${[...up, ...down].join(' ')}"/>`;
      });
      return [...areas, ...legend(Object.entries(PAGES))];
    },
  );
}
