/**
 * Where a command writes: results to stdout, everything else to stderr.
 *
 * Colours and progress lines only where the stream is a terminal (and NO_COLOR is unset); with --json
 * stdout gets one document and stderr no decoration. Made by main.ts, or by tests with streams of
 * their own.
 */
import { styleText } from 'node:util';
import { formatBytes } from './format.js';

export interface TerminalStream {
  isTTY?: boolean | undefined;
  columns?: number | undefined;
  write(text: string): unknown;
}

export interface TerminalStreams {
  stdout: TerminalStream;
  stderr: TerminalStream;
  env: Readonly<Record<string, string | undefined>>;
}

type Style = Parameters<typeof styleText>[0];

export class Terminal {
  #progressShown = false;
  #progressAt = 0;

  constructor(
    private readonly streams: TerminalStreams,
    readonly json: boolean,
  ) {}

  /** One line of the result. */
  line(text = ''): void {
    this.clearProgress();
    this.streams.stdout.write(`${text}\n`);
  }

  /** Text of the result as it comes. */
  write(text: string): void {
    this.streams.stdout.write(text);
  }

  get columns(): number {
    return this.streams.stdout.columns ?? 80;
  }

  /** Lines of the result that change while they are looked at; where nobody can see that, they come at the end. */
  block(): { draw(lines: readonly string[]): void; end(lines: readonly string[]): void } {
    const { stdout } = this.streams;
    let shown = 0;
    const draw = (lines: readonly string[]) => {
      const back = shown === 0 ? '' : `\u001b[${shown}A\u001b[J`;
      stdout.write(`${back}${lines.map((line) => `${line}\n`).join('')}`);
      shown = lines.length;
    };
    return { draw: (lines) => (stdout.isTTY === true ? draw(lines) : undefined), end: draw };
  }

  /** What is said beside the result. */
  note(text: string): void {
    this.clearProgress();
    this.streams.stderr.write(`${text}\n`);
  }

  /** The result: the document itself, or what people are to read of it. */
  result(document: unknown, lines: () => readonly string[]): void {
    if (this.json) this.line(JSON.stringify(document));
    else lines().forEach((line) => this.line(line));
  }

  style(format: Style, text: string): string {
    return this.isColoured(this.streams.stdout) ? styleText(format, text, RAW) : text;
  }

  styleNote(format: Style, text: string): string {
    return this.isColoured(this.streams.stderr) ? styleText(format, text, RAW) : text;
  }

  /** Nothing where nobody looks. */
  progress(name: string, loadedBytes: number, totalBytes: number): void {
    const { stderr } = this.streams;
    if (this.json || stderr.isTTY !== true) return;
    const now = performance.now();
    if (loadedBytes < totalBytes && now - this.#progressAt < 100) return;
    this.#progressAt = now;
    const share = totalBytes > 0 ? loadedBytes / totalBytes : 1;
    const bar = '#'.repeat(Math.round(share * 24)).padEnd(24, '.');
    const text = `[${bar}] ${Math.floor(share * 100)} % of ${formatBytes(totalBytes)}  ${name}`;
    stderr.write(`\r\u001b[K${text.slice(0, (stderr.columns ?? 80) - 1)}`);
    this.#progressShown = true;
  }

  clearProgress(): void {
    if (!this.#progressShown) return;
    this.#progressShown = false;
    this.streams.stderr.write('\r\u001b[K');
  }

  private isColoured({ isTTY }: TerminalStream): boolean {
    const { NO_COLOR, TERM } = this.streams.env;
    return isTTY === true && !this.json && !NO_COLOR && TERM !== 'dumb';
  }
}

/** Whether to colour was decided here; node would look at the process's own streams again. */
const RAW = { validateStream: false } as const;
