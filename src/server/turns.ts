/**
 * Turns of the event loop: what comes at once (requests, or a step's tokens of many streams) is done some
 * at a time, and between these everything else in the process goes on.
 *
 * First come, first served. Used by read-body.ts and generation.ts.
 */

/** Each costs a system call or more; together a few milliseconds. */
const PER_TURN = 16;

let left = PER_TURN;
let isScheduled = false;
const waiting: (() => void)[] = [];

/** undefined: go on; else wait for it. */
export function turn(): Promise<void> | undefined {
  if (!isScheduled) {
    isScheduled = true;
    setImmediate(nextTurn);
  }
  if (left > 0 && waiting.length === 0) {
    left--;
    return undefined;
  }
  return new Promise((resolve) => waiting.push(resolve));
}

function nextTurn(): void {
  const first = waiting.splice(0, PER_TURN);
  left = PER_TURN - first.length;
  isScheduled = waiting.length > 0;
  if (isScheduled) setImmediate(nextTurn);
  for (const resolve of first) resolve();
}
