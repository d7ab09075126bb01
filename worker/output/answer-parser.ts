/**
 * The text of an answer -> reasoning, text and calls, as it comes.
 *
 * Always holds: no part of a marker is ever given out as text; a call's deltas, joined, are its input;
 * calls follow one another, and behind the first nothing is text. What calls look like is enforced
 * by a grammar (answer-grammar.ts), so nothing here doubts it. Called by text-output.ts.
 */
import { randomInt } from 'node:crypto';
import type { ReasoningDeltaEvent, ToolCallEvent } from '../../src/types.js';
import type { ReasoningTags, Thinking } from '../chat/reasoning-tags.js';
import { JsonEnd } from './json-end.js';
import { withoutSigns } from './markers.js';
import { StopStrings } from './stop-strings.js';

export type AnswerPart = { type: 'text'; text: string } | ReasoningDeltaEvent | ToolCallEvent;

/** All strings as the text shows them. */
export interface AnswerSyntax {
  /** null: no reasoning comes. */
  reasoning: { tags: ReasoningTags; thinking: Exclude<Thinking, 'none'> } | null;
  /** null: nothing can be called. */
  calls: {
    /** All that stands before the arguments of a first, and of a further call -> the tool's name. */
    first: ReadonlyMap<string, string>;
    next: ReadonlyMap<string, string>;
    /** All that stands behind the arguments. */
    close: string;
    /** The answer is a call or something else from its first character on. */
    atStartOnly: boolean;
  } | null;
  /** The answer is text that may end anywhere, as long as it has no call in it. */
  openEnded: boolean;
}

type State = 'start' | 'reasoning' | 'text' | 'arguments' | 'close' | 'between';

export class AnswerParser {
  numCalls = 0;
  private state: State;
  /** Held: a start that may be a tag's, or spaces that may be a part's last. */
  private held = '';
  /** The next characters begin a part, whose leading spaces are not its own. */
  private fresh = false;
  /** Watches for what ends the present state; null: nothing does. */
  private watch: StopStrings | null = null;
  private call = { callId: '', name: '', input: '' };
  private end = new JsonEnd();
  private closeLeft = 0;
  private readonly ids = new Set<string>();

  constructor(private readonly syntax: AnswerSyntax) {
    this.state = 'start';
    const { reasoning } = syntax;
    if (reasoning === null) this.beginText();
    else if (reasoning.thinking === 'open') this.beginReasoning(reasoning.tags);
  }

  /** It ended at no end of its own: it was text that could have gone on. */
  get isOpen(): boolean {
    return this.syntax.openEnded && this.numCalls === 0;
  }

  get canReason(): boolean {
    return this.syntax.reasoning !== null;
  }

  get isReasoning(): boolean {
    return this.state === 'reasoning';
  }

  push(text: string): AnswerPart[] {
    const parts: AnswerPart[] = [];
    for (let rest = text; rest !== '';) rest = this.read(rest, parts);
    return parts;
  }

  /** What is still held when nothing more comes. */
  flush(): AnswerPart[] {
    const rest = (this.state === 'start' ? this.held : '') + (this.watch?.flush() ?? '');
    const parts: AnswerPart[] = [];
    if (this.state === 'reasoning') this.addReasoning(rest, parts);
    else if (this.state === 'text' || this.state === 'start') this.addText(rest, parts);
    return parts;
  }

  /** Reads a beginning of `text`; returns what is left. */
  private read(text: string, parts: AnswerPart[]): string {
    switch (this.state) {
      case 'start':
        return this.readStart(text);
      case 'reasoning':
        return this.readReasoning(text, parts);
      case 'text':
      case 'between':
        return this.readText(text, parts);
      case 'arguments':
        return this.readArguments(text, parts);
      case 'close':
        return this.readClose(text, parts);
    }
  }

  private readStart(text: string): string {
    const tags = this.syntax.reasoning?.tags;
    const seen = this.held + text;
    const begun = seen.trimStart();
    if (tags !== undefined && begun.startsWith(tags.open)) {
      this.held = '';
      this.beginReasoning(tags);
      return begun.slice(tags.open.length);
    }
    if (tags?.open.startsWith(begun) === true) {
      this.held = seen;
      return '';
    }
    this.held = '';
    this.beginText();
    return seen;
  }

  private readReasoning(text: string, parts: AnswerPart[]): string {
    const seen = this.watched(text);
    this.addReasoning(seen.text, parts);
    if (seen.stop === null) return '';
    this.held = '';
    this.beginText();
    this.fresh = true;
    return seen.rest;
  }

  private readText(text: string, parts: AnswerPart[]): string {
    const { calls } = this.syntax;
    const isText = this.state === 'text';
    const seen = this.watched(text);
    if (isText) this.addText(seen.text, parts);
    if (isText && calls?.atStartOnly === true && seen.text.trim() !== '') {
      // The answer is no call, so what looks like one, or may become one, is text.
      this.addText(seen.stop ?? this.watch?.flush() ?? '', parts);
      this.watch = null;
      return seen.rest;
    }
    if (seen.stop === null) return '';
    this.beginCall((isText ? calls?.first : calls?.next)?.get(seen.stop) ?? '', parts);
    return seen.rest;
  }

  private readArguments(text: string, parts: AnswerPart[]): string {
    const { length, ended } = this.end.push(text);
    const delta = text.slice(0, length);
    this.call.input += delta;
    parts.push({ type: 'tool-call-delta', callId: this.call.callId, delta });
    if (ended) {
      this.state = 'close';
      this.closeLeft = this.syntax.calls?.close.length ?? 0;
      if (this.closeLeft === 0) this.endCall(parts);
    }
    return text.slice(length);
  }

  private readClose(text: string, parts: AnswerPart[]): string {
    const length = Math.min(this.closeLeft, text.length);
    this.closeLeft -= length;
    if (this.closeLeft === 0) this.endCall(parts);
    return text.slice(length);
  }

  private watched(text: string): { text: string; stop: string | null; rest: string } {
    return this.watch?.push(text) ?? { text, stop: null, rest: '' };
  }

  private beginReasoning({ close }: ReasoningTags): void {
    this.state = 'reasoning';
    this.fresh = true;
    this.watch = new StopStrings([close]);
  }

  private beginText(): void {
    const { calls } = this.syntax;
    this.state = 'text';
    this.watch = calls === null ? null : new StopStrings([...calls.first.keys()]);
  }

  private beginCall(name: string, parts: AnswerPart[]): void {
    this.call = { callId: this.newCallId(), name, input: '' };
    this.numCalls++;
    this.end = new JsonEnd();
    this.state = 'arguments';
    parts.push({ type: 'tool-call-start', callId: this.call.callId, name });
  }

  private endCall(parts: AnswerPart[]): void {
    parts.push({ type: 'tool-call-end', ...this.call });
    this.state = 'between';
    this.watch = new StopStrings([...(this.syntax.calls?.next.keys() ?? [])]);
  }

  private addText(text: string, parts: AnswerPart[]): void {
    const visible = withoutSigns(text);
    const own = this.fresh ? visible.trimStart() : visible;
    if (own === '') return;
    this.fresh = false;
    parts.push({ type: 'text', text: own });
  }

  /** Spaces are held: those before the closing tag are not the reasoning's. */
  private addReasoning(text: string, parts: AnswerPart[]): void {
    const visible = withoutSigns(text);
    const own = this.fresh ? visible.trimStart() : this.held + visible;
    if (own === '') return;
    this.fresh = false;
    const shown = own.trimEnd();
    this.held = own.slice(shown.length);
    if (shown !== '') parts.push({ type: 'reasoning-delta', text: shown });
  }

  private newCallId(): string {
    let id: string;
    do {
      id = Array.from({ length: 9 }, () => ALPHANUMERIC.charAt(randomInt(62))).join('');
    } while (this.ids.has(id));
    this.ids.add(id);
    return id;
  }
}

const ALPHANUMERIC = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
