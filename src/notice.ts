/**
 * What the library has to say without being asked: `process.emitWarning`, once a process.
 *
 * "Once" holds across the ESM and CJS copies of the package. Nothing else in src/ writes anywhere.
 */
const KEY = Symbol.for('lorax-js.notices');

/** `code` names the notice; a second one with the same code and message is not emitted. */
export function noticeOnce(code: string, message: string): void {
  const holder = globalThis as { [KEY]?: Set<string> };
  const seen = (holder[KEY] ??= new Set());
  const key = `${code} ${message}`;
  if (seen.has(key)) return;
  seen.add(key);
  process.emitWarning(message, { type: 'LoraxWarning', code });
}
