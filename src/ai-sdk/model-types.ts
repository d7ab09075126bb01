/**
 * What our models answer with, as narrow as it is: valid as spec V4 and as V3, so that ai6.ts only
 * changes the version's name.
 */
import type { TokenLogprob } from '../types.js';

export type LoraxWarning =
  | { type: 'unsupported' | 'compatibility'; feature: string; details?: string }
  | { type: 'other'; message: string };

/** What these models read and write. */
export const CAPABILITIES = {
  input: { text: true, textFiles: true, images: false, audio: false, video: false },
  output: { text: true, structured: true, toolCalls: true, reasoning: true },
} as const;

export interface LoraxFinishReason {
  unified: 'stop' | 'length' | 'tool-calls';
  raw: string;
}

export interface LoraxUsage {
  inputTokens: { total: number; noCache: number; cacheRead: number; cacheWrite: undefined };
  outputTokens: { total: number; text: number; reasoning: number | undefined };
  /** The engine's own. */
  raw: {
    promptTokens: number;
    cachedTokens: number;
    outputTokens: number;
    reasoningTokens?: number;
  };
}

/** `providerMetadata.lorax` of every answer. */
export type LoraxProviderMetadata = {
  /** null = the base model. */
  adapter: string | null;
  /** sha256 of the adapter's content, hex. */
  adapterHash: string | null;
  queueMs: number;
  timeToFirstTokenMs: number | null;
  /** One a token, when asked for by `providerOptions.lorax.logprobs`. */
  logprobs?: LogprobJson[];
};

/** What an embed call answers with; its metadata says what computed it, as a language model's do. */
export interface LoraxEmbedResult {
  embeddings: number[][];
  usage: { tokens: number };
  providerMetadata: { lorax: Pick<LoraxProviderMetadata, 'adapter' | 'adapterHash'> };
  warnings: LoraxWarning[];
}

/** TokenLogprob as a type alias: an interface is no JSONValue to TypeScript. */
export type LogprobJson = Pick<TokenLogprob, 'tokenId' | 'logprob'> & {
  top: { tokenId: number; logprob: number }[];
};

export type LoraxContent =
  { type: 'text'; text: string } | { type: 'reasoning'; text: string } | LoraxToolCall;

export interface LoraxToolCall {
  type: 'tool-call';
  toolCallId: string;
  toolName: string;
  /** JSON text that matches the tool's schema. */
  input: string;
}

/** What an answer consists of. */
export type LoraxContentPart =
  | { type: 'text-start' | 'reasoning-start'; id: string }
  | { type: 'text-delta' | 'reasoning-delta'; id: string; delta: string }
  | { type: 'text-end' | 'reasoning-end'; id: string }
  | { type: 'tool-input-start'; id: string; toolName: string }
  | { type: 'tool-input-delta'; id: string; delta: string }
  | { type: 'tool-input-end'; id: string }
  | LoraxToolCall;

export type LoraxStreamPart =
  | LoraxContentPart
  | { type: 'stream-start'; warnings: LoraxWarning[] }
  | ({ type: 'response-metadata' } & ResponseMetadata)
  /** With includeRawChunks: the engine's events. */
  | { type: 'raw'; rawValue: unknown }
  | { type: 'error'; error: unknown }
  | {
      type: 'finish';
      usage: LoraxUsage;
      finishReason: LoraxFinishReason;
      providerMetadata: { lorax: LoraxProviderMetadata };
    };

export interface ResponseMetadata {
  id: string;
  timestamp: Date;
  modelId: string;
}

export interface LoraxGenerateResult {
  content: LoraxContent[];
  finishReason: LoraxFinishReason;
  usage: LoraxUsage;
  providerMetadata: { lorax: LoraxProviderMetadata };
  response: ResponseMetadata;
  warnings: LoraxWarning[];
}

export interface LoraxStreamResult {
  stream: ReadableStream<LoraxStreamPart>;
}
