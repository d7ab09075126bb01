/**
 * What our models answer with, as narrow as it is: valid as spec V4 and as V3, so that
 * ai6.ts only changes the version's name. Types only.
 */
import type { TokenLogprob } from '../types.js';

export type LoraxWarning =
  { type: 'unsupported'; feature: string; details?: string } | { type: 'other'; message: string };

export interface LoraxFinishReason {
  unified: 'stop' | 'length';
  raw: string;
}

export interface LoraxUsage {
  inputTokens: { total: number; noCache: number; cacheRead: number; cacheWrite: undefined };
  outputTokens: { total: number; text: number; reasoning: undefined };
  raw: { promptTokens: number; cachedTokens: number; outputTokens: number };
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

export type LoraxStreamPart =
  | { type: 'stream-start'; warnings: LoraxWarning[] }
  | ({ type: 'response-metadata' } & ResponseMetadata)
  | { type: 'text-start'; id: string }
  | { type: 'text-delta'; id: string; delta: string }
  | { type: 'text-end'; id: string }
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
  content: { type: 'text'; text: string }[];
  finishReason: LoraxFinishReason;
  usage: LoraxUsage;
  providerMetadata: { lorax: LoraxProviderMetadata };
  response: ResponseMetadata;
  warnings: LoraxWarning[];
}

export interface LoraxStreamResult {
  stream: ReadableStream<LoraxStreamPart>;
}
