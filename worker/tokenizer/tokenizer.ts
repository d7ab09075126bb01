/**
 * The model's tokenizer: messages or text -> token ids, and the table that turns ids into bytes.
 *
 * Always holds: a prompt's ids equal Hugging Face's apply_chat_template / __call__ where no content
 * spells a control token; where one does, it stays text. A prompt that cannot fit is refused before
 * it is tokenized. Reads tokenizer.json and tokenizer_config.json. Called by engine-port.ts.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { LoraxError } from '../../src/errors.js';
import type { Thinking } from '../chat/reasoning-tags.js';
import {
  ChatTemplate,
  templateFromConfig,
  type Chat,
  type TemplateSource,
} from './chat-template.js';
import { ControlTokens, type AddedToken, type PromptPiece } from './control-tokens.js';
import { LengthBound } from './length-bound.js';
import { TextEncoderOfTokenizer, type Merges } from './text-encoder.js';
import { TokenBytes, tokenDecodingOf } from './token-bytes.js';

type Json = Record<string, unknown>;

export interface TemplateSources {
  chat: TemplateSource | null;
  /** For requests with tools. */
  tools: TemplateSource | null;
}

export interface EncodedChat {
  ids: number[];
  thinking: Thinking;
}

const SPECIAL_NAMES = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'].map((n) => `${n}_token`);

export class Tokenizer {
  readonly table: TokenBytes;
  /** tokenizer_config.json's eos_token. */
  readonly eosTokenId: number | null;
  /** Tokens that spell nothing in the output. */
  readonly special: readonly AddedToken[];
  /** What a plain text begins with (a beginning-of-sequence token, or nothing), and ends with. */
  private readonly textPrefix: number[];
  private readonly textSuffix: number[];
  private readonly control: ControlTokens;
  private readonly encoder: TextEncoderOfTokenizer;
  private readonly chatTemplate: ChatTemplate;
  /** A model may have another template for requests with tools. */
  private readonly toolTemplate: ChatTemplate;
  private readonly bound: LengthBound;

  static async load(directory: string): Promise<Tokenizer> {
    const file = path.join(directory, 'tokenizer.json');
    const [json, config, template] = await Promise.all([
      readJson(file),
      readJson(path.join(directory, 'tokenizer_config.json')),
      readIfThere(path.join(directory, 'chat_template.jinja')),
    ]);
    if (json === null) {
      throw new LoraxError(
        'MODEL_INVALID',
        `${file}: no such file. A model directory needs tokenizer.json (save the tokenizer with ` +
          'a "fast" tokenizer of transformers).',
        { data: { file } },
      );
    }
    const source = (name?: string): TemplateSource | null => {
      if (template !== null) return { text: template, file: 'chat_template.jinja' };
      const text = templateFromConfig(config?.chat_template, name);
      return text === null ? null : { text, file: 'tokenizer_config.json' };
    };
    return new Tokenizer(json, config ?? {}, { chat: source(), tools: source('tool_use') }, file);
  }

  constructor(json: Json, config: Json, templates: TemplateSources, file: string) {
    const library = createLibraryTokenizer(json, config, file);
    const specialTokens = specialTokensOf(config);
    const added = addedTokensOf(json, config, specialTokens);
    const model = library.model;
    if (model === null) throw new LoraxError('MODEL_INVALID', `${file}: has no model.`);

    const withAffixes = library.encode('a', { add_special_tokens: true }).ids;
    const without = library.encode('a', { add_special_tokens: false }).ids;
    const idOf = (name: string) => library.token_to_id(specialTokens[name] ?? '') ?? null;
    const [before, after] = affixesOf(withAffixes, without);
    this.eosTokenId = idOf('eos_token');
    this.textPrefix = asConfigured(before, idOf('bos_token'), config.add_bos_token);
    this.textSuffix = asConfigured(after, this.eosTokenId, config.add_eos_token);
    this.table = new TokenBytes([...model.vocab], added, tokenDecodingOf(json.decoder, file));

    // Added tokens are ours to find; the model is left with the vocabulary it can merge to.
    const vocabulary = (json.model as { vocab?: Json } | undefined)?.vocab ?? {};
    for (const token of added) {
      if (!Object.hasOwn(vocabulary, token.content)) model.tokens_to_ids.delete(token.content);
    }
    const controlIds = new Map(
      added.filter((token) => token.special).map((token) => [token.id, token.content]),
    );
    this.encoder = new TextEncoderOfTokenizer(library, controlIds, mergesOf(json));
    this.control = new ControlTokens(added);
    this.chatTemplate = new ChatTemplate(templates.chat, specialTokens, this.control);
    this.toolTemplate =
      templates.tools?.text === templates.chat?.text
        ? this.chatTemplate
        : new ChatTemplate(templates.tools, specialTokens, this.control);
    this.special = added.filter((token) => token.special);
    this.bound = new LengthBound(this.table, library.normalizer !== null);
  }

  templateFor(hasTools: boolean): ChatTemplate {
    return hasTools ? this.toolTemplate : this.chatTemplate;
  }

  /** As apply_chat_template(messages, tools=tools, add_generation_prompt=True). */
  async encodeChat(chat: Chat, contextTokens: number): Promise<EncodedChat> {
    let atLeast = 0;
    for (const message of chat.messages) {
      atLeast += this.bound.atLeast(String(message.content), contextTokens);
      refuseIfLonger(atLeast, contextTokens);
    }
    const { text, thinking } = this.templateFor(chat.tools !== undefined).render(chat);
    const ids = await this.encodePieces(this.control.split(text), [], contextTokens);
    return { ids, thinking };
  }

  /** Text as it is: begins as the tokenizer says texts begin, and spells no control token. */
  async encodeText(text: string, contextTokens: number, withPrefix = true): Promise<number[]> {
    refuseIfLonger(this.bound.atLeast(text, contextTokens), contextTokens);
    const prefix = withPrefix ? [...this.textPrefix] : [];
    return this.encodePieces(this.control.splitPlain(text), prefix, contextTokens);
  }

  /** As __call__: the same, and what the tokenizer ends a text with, which a prompt goes on without. */
  async encodeWholeText(text: string, contextTokens: number): Promise<number[]> {
    const ids = await this.encodeText(text, contextTokens);
    ids.push(...this.textSuffix);
    return ids;
  }

  private async encodePieces(
    pieces: PromptPiece[],
    ids: number[],
    contextTokens: number,
  ): Promise<number[]> {
    let turnEnds = performance.now() + TURN_MS;
    for (const [section, piece] of pieces.entries()) {
      if ('token' in piece) {
        ids.push(piece.token.id);
        continue;
      }
      for (const _ of this.encoder.encode(piece.text, section, ids)) {
        refuseIfLonger(ids.length, contextTokens);
        if (performance.now() > turnEnds) {
          await nextTick();
          turnEnds = performance.now() + TURN_MS;
        }
      }
    }
    return ids;
  }
}

/** A long prompt is tokenized in turns of about this, between which open streams go on. */
const TURN_MS = 4;

function refuseIfLonger(atLeast: number, contextTokens: number): void {
  if (atLeast <= contextTokens) return;
  throw new LoraxError(
    'CONTEXT_TOO_LONG',
    `The prompt has at least ${atLeast} tokens; the model's context holds ${contextTokens}.`,
    { data: { promptTokensAtLeast: atLeast, contextTokens } },
  );
}

function createLibraryTokenizer(json: Json, config: Json, file: string): LibraryTokenizer {
  try {
    const absent = { decoder: null, post_processor: null, pre_tokenizer: null, normalizer: null };
    return new LibraryTokenizer({ ...absent, added_tokens: [], ...json }, config);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LoraxError('MODEL_INVALID', `${file}: cannot be used: ${reason}`, {
      data: { file, reason },
      cause: error,
    });
  }
}

/** bos_token and the like, as names that chat templates use; values may be { content }. */
function specialTokensOf(config: Json): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const name of SPECIAL_NAMES) {
    const content = contentOf(config[name]);
    if (content !== null) tokens[name] = content;
  }
  return tokens;
}

function contentOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}

function addedTokensOf(json: Json, config: Json, named: Record<string, string>): AddedToken[] {
  const special = new Set(Object.values(named));
  const more = config.additional_special_tokens;
  if (Array.isArray(more)) {
    for (const entry of more) special.add(contentOf(entry) ?? '');
  }
  const added = Array.isArray(json.added_tokens) ? (json.added_tokens as Json[]) : [];
  return added.map((token) => ({
    id: Number(token.id),
    content: String(token.content),
    special: token.special === true || special.has(String(token.content)),
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
  }));
}

/** Null where the model is no plain byte-pair encoding (suffixes change what a merge yields). */
function mergesOf(json: Json): Merges | null {
  const model = json.model as (Json & { merges?: Merges }) | undefined;
  if (model?.type !== 'BPE' || !Array.isArray(model.merges)) return null;
  if (model.continuing_subword_prefix || model.end_of_word_suffix) return null;
  return model.merges;
}

/** What precedes the text's own ids, and what follows them. */
function affixesOf(whole: number[], text: number[]): [before: number[], after: number[]] {
  for (let at = 0; at <= whole.length - text.length; at++) {
    if (text.every((id, i) => whole[at + i] === id)) {
      return [whole.slice(0, at), whole.slice(at + text.length)];
    }
  }
  return [[], []];
}

/** `adds`: what tokenizer_config.json says of the token, where it says anything. */
function asConfigured(affix: number[], token: number | null, adds: unknown): number[] {
  if (token === null) return affix;
  if (adds === true && affix.length === 0) return [token];
  if (adds === false && affix.length === 1 && affix[0] === token) return [];
  return affix;
}

async function readJson(file: string): Promise<Json | null> {
  const text = await readIfThere(file);
  if (text === null) return null;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
    throw new Error('not a JSON object');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new LoraxError('MODEL_INVALID', `${file}: ${reason}`, { data: { file }, cause: error });
  }
}

async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    const reason = error instanceof Error ? error.message : String(error);
    throw new LoraxError('MODEL_INVALID', `${file}: ${reason}`, { data: { file }, cause: error });
  }
}
