/**
 * Places that several lines of waiters share: one that is free goes to the line whose turn it is, so
 * that a line's length delays nobody but itself. Used by embedding-calls.ts.
 */
export class Places {
  /** By line, in the order of their turns; none is empty. */
  private readonly waiting = new Map<string, (() => void)[]>();

  constructor(private numFree: number) {}

  take(line: string): Promise<void> | void {
    if (this.numFree > 0) {
      this.numFree--;
      return;
    }
    return new Promise((resolve) => {
      const others = this.waiting.get(line);
      if (others === undefined) this.waiting.set(line, [resolve]);
      else others.push(resolve);
    });
  }

  leave(): void {
    const [next] = this.waiting;
    if (next === undefined) {
      this.numFree++;
      return;
    }
    const [line, waiters] = next;
    this.waiting.delete(line);
    waiters.shift()?.();
    if (waiters.length > 0) this.waiting.set(line, waiters);
  }
}
