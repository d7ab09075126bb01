/**
 * Ordinary text -> token ids, in slices short enough that streams go on between them.
 *
 * Always holds: the ids are those of the whole text encoded at once; text is only cut where this
 * tokenizer's merges cannot reach across. No control token comes out, whatever the text spells.
 * Called by tokenizer.ts, one piece of a prompt at a time.
 */
import type { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { LongMerge } from './long-merge.js';

export type Merges = readonly (string | readonly [string, string])[];

/** Characters per slice: a few milliseconds of work. */
const SLICE_CHARACTERS = 8192;
const PRE_TOKENS_PER_SLICE = 1024;
/** A single pre-token longer than this is merged here, in turns. */
const LONG_RUN = 1024;

export class TextEncoderOfTokenizer {
  /** "ab cd" is "ab" + " cd", so long text can be cut before it is normalized. */
  private readonly cutsBeforeSpaces: boolean;
  /** No token holds a "▁" after another character, so words can be merged one by one. */
  private readonly cutsWords: boolean;
  /** Built when the first long run appears. */
  private longMerge: LongMerge | null = null;

  constructor(
    private readonly library: LibraryTokenizer,
    /** id -> content of the tokens that text must not become. */
    private readonly control: ReadonlyMap<number, string>,
    /** Of a BPE vocabulary; null for other kinds. */
    private readonly merges: Merges | null,
  ) {
    this.cutsBeforeSpaces = ['ab cd', 'Ab Cd', 'é x', 'don t'].every((probe) => {
      const space = probe.indexOf(' ');
      const parts = [probe.slice(0, space), probe.slice(space)].flatMap((p) =>
        this.preTokens(p, 0),
      );
      const whole = this.preTokens(probe, 0);
      return whole.length === parts.length && whole.every((token, i) => token === parts[i]);
    });
    const vocabulary = library.model?.vocab ?? [];
    this.cutsWords =
      merges !== null &&
      !this.cutsBeforeSpaces &&
      !vocabulary.some((token) => /[^▁]▁/.test(token ?? ''));
  }

  /**
   * Appends the ids of `text` to `ids`. Yields between slices: the caller may let others run, or
   * give up. `section`: index of the piece within the prompt (some tokenizers prefix only the first).
   */
  *encode(text: string, section: number, ids: number[]): Generator<void, void> {
    for (const slice of this.slices(text)) {
      const preTokens = this.preTokens(slice, section);
      for (let from = 0; from < preTokens.length; from += PRE_TOKENS_PER_SLICE) {
        const start = ids.length;
        yield* this.merge(preTokens.slice(from, from + PRE_TOKENS_PER_SLICE), ids);
        const found = this.controlAmong(ids, start);
        if (found !== null) {
          ids.length = start;
          yield* this.encodeBroken(slice, section, found, ids);
          break;
        }
        yield;
      }
    }
  }

  /** A vocabulary may reach a control token by merging: encode its halves apart. */
  private *encodeBroken(
    text: string,
    section: number,
    content: string,
    ids: number[],
  ): Generator<void, void> {
    const at = text.indexOf(content);
    if (at < 0 || content.length < 2) {
      yield* this.merge(this.preTokens(text, section), ids);
      return;
    }
    yield* this.encode(text.slice(0, at + 1), section, ids);
    yield* this.encode(text.slice(at + 1), section + 1, ids);
  }

  private controlAmong(ids: number[], start: number): string | null {
    for (let i = start; i < ids.length; i++) {
      const content = this.control.get(ids[i] as number);
      if (content !== undefined) return content;
    }
    return null;
  }

  private *slices(text: string): Generator<string, void> {
    if (!this.cutsBeforeSpaces || text.length <= SLICE_CHARACTERS) {
      yield text;
      return;
    }
    // Between a letter and " x": every such boundary already separates two pre-tokens.
    const boundary = /\p{L}(?= \p{L})/gu;
    let start = 0;
    while (text.length - start > SLICE_CHARACTERS) {
      boundary.lastIndex = start + SLICE_CHARACTERS;
      if (boundary.exec(text) === null) break;
      yield text.slice(start, boundary.lastIndex);
      start = boundary.lastIndex;
    }
    yield text.slice(start);
  }

  private preTokens(text: string, section: number): string[] {
    const { normalizer, pre_tokenizer: preTokenizer } = this.library;
    const normalized = normalizer === null ? text : normalizer(text);
    if (normalized === '') return [];
    const tokens =
      preTokenizer === null ? [normalized] : preTokenizer(normalized, { section_index: section });
    return this.cutsWords ? tokens.flatMap((token) => token.split(/(?<=[^▁])(?=▁)/)) : tokens;
  }

  private *merge(preTokens: string[], ids: number[]): Generator<void, void> {
    let from = 0;
    for (const [i, preToken] of preTokens.entries()) {
      if (preToken.length <= LONG_RUN || this.merges === null) continue;
      this.mergeByLibrary(preTokens.slice(from, i), ids);
      this.longMerge ??= new LongMerge(this.merges, this.library.model?.tokens_to_ids ?? new Map());
      if (!(yield* this.longMerge.merge(preToken, ids))) this.mergeByLibrary([preToken], ids);
      from = i + 1;
    }
    this.mergeByLibrary(from === 0 ? preTokens : preTokens.slice(from), ids);
  }

  private mergeByLibrary(preTokens: string[], ids: number[]): void {
    const model = this.library.model;
    if (model === null || preTokens.length === 0) return;
    for (const token of model(preTokens)) {
      const id = model.tokens_to_ids.get(token) ?? model.unk_token_id;
      if (id !== undefined) ids.push(id);
    }
  }
}
