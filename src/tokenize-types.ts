/** A prompt's tokens, asked for without generating. Part of types.ts, which exports it. */
import type { ChatMessage, ToolDefinition } from './types.js';

/** As a request's prompt; tokens that a chat's template adds are counted in. */
export type TokenizeRequest =
  | { messages: ChatMessage[]; tools?: ToolDefinition[]; reasoning?: boolean; prompt?: never }
  | {
      prompt: string;
      /** What the tokenizer begins every text with. Default true. */
      addSpecialTokens?: boolean;
      messages?: never;
    };

export interface TokenizeResult {
  tokenIds: number[];
}

export interface DetokenizeResult {
  /** As an answer of these tokens would read: special ones say nothing. */
  text: string;
  /** Each token's own UTF-8 bytes, special ones' names included; may be a part of a character. */
  pieces: Uint8Array[];
  /** Which of them say nothing in an answer. */
  special: boolean[];
}
