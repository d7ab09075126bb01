/** Numbers as people read them, in few characters. */

const WHOLE = new Intl.NumberFormat('en');

export const count = (value: number): string => WHOLE.format(Math.round(value));

/** 0.42, 4.2, 42, 4,200, 42k */
export function short(value: number): string {
  if (value >= 1e6) return `${trim(value / 1e6, 1)}M`;
  if (value >= 1e4) return `${trim(value / 1e3, value < 1e5 ? 1 : 0)}k`;
  return value >= 10 || value === 0 ? count(value) : trim(value, value >= 1 ? 1 : 2);
}

/** 0.42 ms, 42 ms, 4.2 s */
export function milliseconds(ms: number): string {
  if (ms >= 60_000) return `${trim(ms / 60_000, 1)} min`;
  if (ms >= 1000) return `${trim(ms / 1000, ms < 1e4 ? 2 : 1)} s`;
  return `${trim(ms, ms < 10 ? 2 : ms < 100 ? 1 : 0)} ms`;
}

export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [size, unit] = [value, 0];
  for (; size >= 1000 && unit < units.length - 1; unit++) size /= 1024;
  return `${trim(size, unit > 0 && size < 100 ? 1 : 0)} ${units[unit]}`;
}

export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [days, hours] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24];
  const minutes = Math.floor(seconds / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/** Of `whole`; nothing of nothing is unknown. */
export const percent = (part: number, whole: number): string =>
  whole === 0 ? '–' : `${trim((100 * part) / whole, 1)} %`;

const trim = (value: number, digits: number): string => String(Number(value.toFixed(digits)));
