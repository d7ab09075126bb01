// The terminal side of the demo: one line (or a few) per stream, redrawn in place while it grows.
//
// On a TTY the board owns the bottom of the screen until `finish()`, which leaves every answer in
// full. Elsewhere nothing moves: each answer is printed once, when it is complete.

const DIM = '\x1b[2m';
const BOLD = '\x1b[1m';
const RESET = '\x1b[0m';
const COLOURS = [
  '\x1b[37m',
  '\x1b[33m',
  '\x1b[36m',
  '\x1b[32m',
  '\x1b[35m',
  '\x1b[34m',
  '\x1b[31m',
];

export class AnswerBoard {
  /**
   * @param {NodeJS.WriteStream} out
   * @param {string[]} questions
   * @param {string[]} speakers  names of the base and the adapters, in order
   */
  constructor(out, questions, speakers) {
    this.out = out;
    this.questions = questions;
    this.speakers = speakers;
    this.live = Boolean(out.isTTY);
    this.answers = questions.map(() => speakers.map(() => ({ text: '', done: false })));
    this.labelWidth = Math.max(...speakers.map((name) => name.length));
    this.drawnLines = 0;
    this.status = '';
    if (this.live) {
      out.write('\x1b[?25l'); // the cursor would flicker over the board
      this.timer = setInterval(() => this.#draw(), 40);
    }
  }

  append(question, speaker, text) {
    this.answers[question][speaker].text += text;
  }

  complete(question, speaker) {
    const answer = this.answers[question][speaker];
    answer.done = true;
    if (!this.live) {
      const label = this.speakers[speaker].padEnd(this.labelWidth);
      this.out.write(`[${label}] ${this.questions[question]} => ${oneLine(answer.text)}\n`);
    }
  }

  setStatus(text) {
    this.status = text;
  }

  finish() {
    if (!this.live) return;
    clearInterval(this.timer);
    this.#erase();
    this.out.write(this.#lines(Infinity).join('\n') + '\n\x1b[?25h');
  }

  #erase() {
    if (this.drawnLines > 0) this.out.write(`\x1b[${this.drawnLines}A\r\x1b[J`);
    this.drawnLines = 0;
  }

  #draw() {
    const streams = this.questions.length * this.speakers.length;
    const room = (this.out.rows ?? 24) - 2 - this.questions.length;
    const lines = this.#lines(Math.max(1, Math.floor(room / streams)));
    if (this.status) lines.push(DIM + this.status.slice(0, this.#width()) + RESET);
    const visible = lines.slice(-((this.out.rows ?? 24) - 1));
    this.#erase();
    this.out.write(visible.join('\n') + '\n');
    this.drawnLines = visible.length;
  }

  #width() {
    return Math.max(40, this.out.columns ?? 80) - 1;
  }

  /** Every answer wrapped to the terminal, the newest `maxLines` lines of each. */
  #lines(maxLines) {
    const textWidth = this.#width() - this.labelWidth - 2;
    const lines = [];
    this.questions.forEach((question, q) => {
      lines.push(BOLD + question.slice(0, this.#width()) + RESET);
      this.speakers.forEach((speaker, s) => {
        const answer = this.answers[q][s];
        const wrapped = wrap(oneLine(answer.text) + (answer.done ? '' : '▌'), textWidth);
        const shown = wrapped.slice(-maxLines);
        shown.forEach((text, index) => {
          const label = (index === 0 ? speaker : '').padEnd(this.labelWidth);
          lines.push(`${COLOURS[s % COLOURS.length]}${label}${RESET}  ${text}`);
        });
      });
    });
    return lines;
  }
}

function oneLine(text) {
  return text.replace(/\s+/g, ' ').trim();
}

/** Greedy word wrap; words longer than a line are cut. */
function wrap(text, width) {
  const lines = [];
  let line = '';
  for (const word of text.split(' ')) {
    let rest = word;
    if (line && line.length + 1 + rest.length > width) {
      lines.push(line);
      line = '';
    }
    while (rest.length > width) {
      lines.push(rest.slice(0, width));
      rest = rest.slice(width);
    }
    line = line ? `${line} ${rest}` : rest;
  }
  lines.push(line);
  return lines;
}
