// Draws the decode steps of a decode_bench CSV as grouped bars, with the floor as a line in each.
//
//   node bench/gpu/plot.mjs bench/results/NAME.csv        writes NAME.svg beside it
import fs from 'node:fs';

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error('plot.mjs: name a CSV of decode_bench');
const [header, ...lines] = fs.readFileSync(file, 'utf8').trim().split('\n');
const names = header.split(',');
const samples = lines
  .map((line) => Object.fromEntries(line.split(',').map((value, i) => [names[i], value])))
  .filter((sample) => sample.unit === 'ms' && Number(sample.of_base) > 0);

const COLORS = ['#334155', '#0ea5e9', '#6366f1', '#d946ef', '#f59e0b', '#10b981', '#ef4444'];
const rows = [...new Set(samples.map((sample) => sample.rows))];
const scenarios = [...new Set(samples.map((sample) => sample.scenario))];
const most = Math.max(...samples.map((sample) => Number(sample.median)));

const BAR = 18;
const HEIGHT = 260;
const LEFT = 44;
const TOP = 46;
const group = (scenarios.length + 1.5) * BAR;
const width = LEFT + rows.length * group + 190;
const y = (ms) => TOP + HEIGHT - (HEIGHT * ms) / (most * 1.05);
const text = (x, at, value, more = '') =>
  `<text x="${x}" y="${at}" font-size="11" fill="#0f172a" ${more}>${value}</text>`;

const out = [
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${TOP + HEIGHT + 40}" ` +
    `font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#fff"/>`,
  text(LEFT, 20, `Decode step, ms, by rows: ${samples[0].device}`, 'font-weight="600"'),
];
for (let ms = 0; ms <= most; ms += 2) {
  out.push(
    `<line x1="${LEFT}" x2="${width - 180}" y1="${y(ms)}" y2="${y(ms)}" stroke="#e2e8f0"/>`,
    text(LEFT - 8, y(ms) + 4, ms, 'text-anchor="end"'),
  );
}
rows.forEach((count, g) => {
  const left = LEFT + g * group + BAR / 2;
  scenarios.forEach((scenario, s) => {
    const sample = samples.find((one) => one.rows === count && one.scenario === scenario);
    if (sample === undefined) return;
    const x = left + s * BAR;
    const ms = Number(sample.median);
    const floor = y(Number(sample.floor_ms));
    out.push(
      `<rect x="${x}" y="${y(ms)}" width="${BAR - 3}" height="${y(0) - y(ms)}" ` +
        `fill="${COLORS[s % COLORS.length]}"><title>${scenario}: ${ms} ms</title></rect>`,
      `<line x1="${x - 1}" x2="${x + BAR - 2}" y1="${floor}" y2="${floor}" stroke="#0f172a" ` +
        `stroke-width="2"/>`,
    );
  });
  const middle = left + (scenarios.length * BAR) / 2;
  out.push(text(middle, y(0) + 18, count, 'text-anchor="middle"'));
});
const legend = width - 170;
scenarios.forEach((scenario, s) => {
  const at = TOP + 12 + s * 18;
  const color = COLORS[s % COLORS.length];
  out.push(`<rect x="${legend}" y="${at - 9}" width="11" height="11" fill="${color}"/>`);
  out.push(text(legend + 18, at, scenario));
});
const last = TOP + 12 + scenarios.length * 18;
out.push(
  `<line x1="${legend}" x2="${legend + 11}" y1="${last - 4}" y2="${last - 4}" stroke="#0f172a" ` +
    `stroke-width="2"/>`,
  text(legend + 18, last, 'floor: bytes / copy speed'),
  '</svg>',
);
fs.writeFileSync(file.replace(/\.csv$/, '.svg'), `${out.join('\n')}\n`);
