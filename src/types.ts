/**
 * The vocabulary of `lorax-js/engine`: what goes in, what comes out.
 *
 * Types only. The providers (src/ai-sdk/) translate to and from these; the worker fulfils them.
 */

import type { LoraxError } from './errors.js';
import type { EngineStats, TenantStats } from './stats-types.js';
import type { DetokenizeResult, TokenizeRequest, TokenizeResult } from './tokenize-types.js';

export type Device = 'auto' | 'cpu' | 'cuda';
export type Precision = 'auto' | 'bfloat16' | 'float32';

export interface EngineOptions {
  /**
   * A Hugging Face model directory (config.json, *.safetensors, tokenizer.json), or a repository of
   * the hub, `org/name@revision`; a directory that is there goes first.
   */
  model: string;
  /** Default 'auto': 'cuda' where a GPU can be used, else 'cpu'; EngineInfo says why. */
  device?: Device;
  /**
   * Weights, KV cache and adapters. 'auto' = 'bfloat16'; 'float32' is the reference, on the CPU
   * alone.
   */
  precision?: Precision;
  /** Size of the page pool (KV cache + resident adapters), bytes. */
  memoryBytes?: number;
  /**
   * Instead of memoryBytes, on a GPU: the share of its memory left after weights and buffers that
   * the page pool takes, (0, 1]. Default 0.9.
   */
  memoryFraction?: number;
  /**
   * Host memory for packed adapters (pinned, where there is a GPU), bytes; those least used go first
   * and are read from disk again when wanted. Default: half of what is available at start.
   */
  hostMemoryBytes?: number;
  /**
   * Tokens one engine step computes at most, prefill chunks and decodes together. Default 512 on
   * the CPU, 2048 on a GPU; with `deterministic` never more than 128 on a GPU.
   */
  maxBatchTokens?: number;
  /**
   * On a GPU: a request's tokens do not depend on who shares its batch, at some cost in speed.
   * Default false. On the CPU they never do.
   */
  deterministic?: boolean;
  /**
   * Requests that may wait; one more is refused with QUEUE_FULL, and `retryAfterMs` in its data says
   * when there may be a place for it. Default 1024.
   */
  maxQueued?: number;
  /** Where models and adapters of the Hugging Face hub come from. */
  hub?: HubOptions;
  onProgress?: (progress: LoadProgress) => void;
  /** Where adapters that are not registered are looked for, in this order. Default: nowhere. */
  sources?: readonly AdapterLookup[];
  onAdapter?: (event: AdapterEvent) => void;
}

/** How the Hugging Face hub is reached; each unset field is the environment's, as Python reads it. */
export interface HubOptions {
  /** For the model and for adapters that have none of their own. Default HF_TOKEN; false: none. */
  token?: string | false;
  /** Default HF_ENDPOINT. */
  endpoint?: string;
  /** Default HF_HUB_CACHE: shared with Python's huggingface_hub. */
  cacheDirectory?: string;
  /** Only what is in the cache already. Default HF_HUB_OFFLINE. */
  offline?: boolean;
}

export interface LoadProgress {
  /** Fetching goes before loading, where the files are not here. */
  stage: 'fetch-model' | 'model' | 'fetch-adapter' | 'adapter';
  name: string;
  loadedBytes: number;
  totalBytes: number;
}

export interface EngineInfo {
  model: string;
  architecture: string;
  device: 'cpu' | 'cuda';
  /** What was chosen and why, one line, e.g. "cpu: AMX bf16, 2 threads". */
  deviceDescription: string;
  precision: 'bfloat16' | 'float32';
  contextTokens: number;
  vocabSize: number;
  numPages: number;
  pageBytes: number;
  blockTokens: number;
}

/** JSON Schema, draft 2020-12. */
export type JsonSchema = Record<string, unknown> | boolean;

export interface ToolDefinition {
  name: string;
  description?: string;
  /** Of the call's arguments: an object. What the model writes always matches it. */
  parameters: JsonSchema;
  /** As other providers have it; here every call matches, with or without. */
  strict?: boolean;
}

/** What the whole output must match, token by token: nothing else can be generated. */
export type Constraint =
  /** JSON; without a schema any object. Compact, with properties in the schema's order. */
  | { type: 'json'; schema?: JsonSchema }
  /** ECMAScript syntax, flag u. From the first character to the last. */
  | { type: 'regex'; pattern: string }
  | { type: 'choice'; choices: string[] }
  /** GBNF; begins at the rule `root`. */
  | { type: 'grammar'; grammar: string };

/** 'required': one call at least; { name }: of this tool. */
export type ToolChoice = 'auto' | 'none' | 'required' | { name: string };

export interface ToolCall {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
}

export type ChatMessage =
  | { role: 'system' | 'user'; content: string }
  | { role: 'assistant'; content: string; toolCalls?: ToolCall[]; reasoning?: string }
  /** The result of a call of an earlier assistant message. */
  | { role: 'tool'; toolCallId: string; name?: string; content: string };

/** Unset fields come from generation_config.json, else greedy. */
export interface Sampling {
  maxOutputTokens?: number;
  /** 0 = greedy. */
  temperature?: number;
  /** 0 = off. */
  topK?: number;
  /** (0, 1]; 1 = off. */
  topP?: number;
  /** [0, 1]; 0 = off. */
  minP?: number;
  /** > 0; 1 = off (Keskar et al. 2019). Counts prompt and output. */
  repetitionPenalty?: number;
  /** [-2, 2]; 0 = off. Output tokens only. */
  frequencyPenalty?: number;
  /** [-2, 2]; 0 = off. Output tokens only. */
  presencePenalty?: number;
  /** token id -> added to its logit, [-100, 100]. */
  logitBias?: Record<number, number>;
  /** Integer in [0, 2^53). Unset: drawn at random. */
  seed?: number;
  /** Alternatives per token, 0..20; unset = no logprobs at all. */
  logprobs?: number;
  /** Looked for in the answer's text, not in reasoning and calls. */
  stop?: string[];
  stopTokenIds?: number[];
  /** Generate through end-of-sequence tokens. */
  ignoreEos?: boolean;
}

export interface Usage {
  promptTokens: number;
  /** Of the prompt, those whose KV was reused. */
  cachedTokens: number;
  outputTokens: number;
  /** Of the output, those of its reasoning; unset where the answer cannot have any. */
  reasoningTokens?: number;
}

export interface Timing {
  /** Submission to admission. */
  queueMs: number;
  /** Submission to the first token; null if there was none. */
  timeToFirstTokenMs: number | null;
  totalMs: number;
}

export interface AdapterIdentity {
  /** Of a mix: "0.7*pirate + 0.3*json". */
  name: string;
  /** sha256 of its content, hex; of a mix, of its adapters' hashes with their weights. */
  hash: string;
  /** What a mix is made of. */
  mix?: readonly { name: string; hash: string; weight: number }[];
}

/**
 * Registered names with their weights, at most 8: all of them are added to the base model, each times
 * its weight (PEFT: `add_weighted_adapter` with `combination_type='cat'`).
 */
export type AdapterMix = Readonly<Record<string, number>>;

/** How a request is served beside others. */
export interface ServiceOptions {
  /** Integer, -1000 to 1000, default 0: higher ones of a tenant, or adapter where there is none, go first. */
  priority?: number;
  /**
   * Milliseconds from now, or a Date. A request whose first token would come later, by what waits
   * before it and the speeds measured here, fails at once with DEADLINE_EXCEEDED; `retryAfterMs` in
   * its data says when it might be met. One that is generating ends at its deadline with what it has
   * (reason 'length', rawReason 'deadline'), or fails where its constraint does not let it end there.
   */
  deadline?: number | Date;
}

interface GenerateRequestBase extends ServiceOptions {
  /** Registered name, or names with weights; unset or 'base' = the base model. */
  adapter?: string | AdapterMix;
  sampling?: Sampling;
  constraint?: Constraint;
  /** With `messages` only, as the other three. */
  tools?: ToolDefinition[];
  /** Default 'auto'. */
  toolChoice?: ToolChoice;
  /** false: one call at most. Default true. */
  parallelToolCalls?: boolean;
  /** Whether a model that can think before it answers does. Default: as its chat template has it. */
  reasoning?: boolean;
  /**
   * The KV of a prompt's beginning is reused by requests of the same adapters that begin alike and
   * have the same scope, of one tenant. Unset: by all that have none.
   */
  cacheScope?: string;
  signal?: AbortSignal;
  /** Fires exactly once, also for aborted and failed requests. */
  onUsage?: (usage: Usage, timing: Timing) => void;
}

/** Exactly one of the three. */
export type GenerateRequest =
  | (GenerateRequestBase & { messages: ChatMessage[]; prompt?: never; promptTokens?: never })
  | (GenerateRequestBase & { prompt: string; messages?: never; promptTokens?: never })
  | (GenerateRequestBase & { promptTokens: number[]; messages?: never; prompt?: never });

export interface TokenLogprob {
  tokenId: number;
  logprob: number;
  top: { tokenId: number; logprob: number }[];
}

export interface StartEvent {
  type: 'start';
  id: string;
  adapter: AdapterIdentity | null;
  promptTokens: number;
  cachedTokens: number;
  queueMs: number;
}

/** Every token's id and logprob is in one, also of reasoning and tool calls: there `text` is ''. */
export interface DeltaEvent {
  type: 'delta';
  /** May be '' while a character is incomplete or a stop string or a tool call may be beginning. */
  text: string;
  tokenIds: number[];
  logprobs?: TokenLogprob[];
}

export interface ReasoningDeltaEvent {
  type: 'reasoning-delta';
  text: string;
}

/** Calls come one after another: start, deltas, end. */
export interface ToolCallStartEvent {
  type: 'tool-call-start';
  /** Nine letters and digits, distinct within the answer. */
  callId: string;
  name: string;
}

export interface ToolCallDeltaEvent {
  type: 'tool-call-delta';
  callId: string;
  /** A piece of the JSON text of the arguments. */
  delta: string;
}

/** Missing where the answer was cut off (reason 'length') inside the call. */
export interface ToolCallEndEvent {
  type: 'tool-call-end';
  callId: string;
  name: string;
  /** The JSON text of the arguments: the call's deltas, joined. */
  input: string;
}

export type ToolCallEvent = ToolCallStartEvent | ToolCallDeltaEvent | ToolCallEndEvent;

export interface FinishEvent {
  type: 'finish';
  /** 'tool-calls': the answer ended by itself, with one call at least. */
  reason: 'stop' | 'length' | 'tool-calls';
  /**
   * 'eos', 'stop-token:<id>', 'stop-string:<text>', 'grammar' (complete, with no stop token to
   * follow), 'max-output-tokens', 'context', 'pool', 'deadline'.
   */
  rawReason: string;
  usage: Usage;
  timing: Timing;
}

export type TokenEvent =
  StartEvent | DeltaEvent | ReasoningDeltaEvent | ToolCallEvent | FinishEvent;

/**
 * Which of a text's final hidden states (after the model's last norm) make its embedding: their
 * mean, the last token's, or the first one's, which in a decoder sees nothing but itself.
 */
export type Pooling = 'mean' | 'last' | 'cls';

export interface EmbedRequest extends ServiceOptions {
  /** Texts, each tokenized as the model's tokenizer does it, end token included where it adds one. */
  input: string[];
  /** Registered name, or names with weights; unset or 'base' = the base model. */
  adapter?: string | AdapterMix;
  /** Default 'mean'. */
  pooling?: Pooling;
  /** To length 1 (L2). Default true. */
  normalize?: boolean;
  signal?: AbortSignal;
}

export interface EmbedResult {
  /** One for each input, in their order; of the model's hidden size. */
  embeddings: Float32Array[];
  /** Of all inputs. */
  usage: { promptTokens: number };
  /** What computed all of them; null = the base model. */
  adapter: AdapterIdentity | null;
}

/** A repository of the Hugging Face hub. */
export interface HubSource {
  /** org/name or org/name@revision. */
  hub: string;
  /** Default: the engine's. False: none. */
  token?: string | false;
}

/** Below an address: adapter_config.json and adapter_model.safetensors (or adapter_model.bin). */
export interface UrlSource {
  url: string;
  headers?: Record<string, string>;
}

export interface S3Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string | undefined;
}

export interface S3Source {
  /** s3://bucket/prefix */
  s3: string;
  /** Of a compatible server. Default AWS_ENDPOINT_URL_S3, else AWS. */
  endpoint?: string;
  /** Default AWS_REGION, else us-east-1. */
  region?: string;
  /** Or what gives them, e.g. one of @aws-sdk/credential-providers. Default AWS_ACCESS_KEY_ID, ... */
  credentials?: S3Credentials | (() => S3Credentials | Promise<S3Credentials>);
}

/** A PEFT directory, an hf://, https:// or s3:// address, or one of these with its settings. */
export type AdapterSource = string | { directory: string } | HubSource | UrlSource | S3Source;

/** null or undefined: it knows no such adapter. */
export type AdapterResolver = (
  name: string,
  context: { tenant?: string },
) => AdapterSource | null | undefined | Promise<AdapterSource | null | undefined>;

/**
 * Where a name that is not registered is looked for: the subfolder of that name, or an address with
 * the name in place of its `*`, or what a function says.
 */
export type AdapterLookup = { folder: string } | HubSource | UrlSource | S3Source | AdapterResolver;

/** A content that a name has stood for: its hash or the first 8 digits of it, or more. */
export interface AdapterVersion {
  hash: string;
}

/**
 * 'absent': nothing is here yet; 'on-disk': its files are; 'host': packed in memory; 'resident': in the
 * page pool; 'failed': the last attempt did, the next request makes another.
 */
export type AdapterState = 'absent' | 'fetching' | 'on-disk' | 'host' | 'resident' | 'failed';

export interface AdapterInfo {
  name: string;
  state: AdapterState;
  /** Without credentials. */
  source: string;
  /** Why, where it failed. */
  error?: LoraxError;
  /** Unset until it was loaded once. */
  hash?: string;
  /** Where its files lie. Likewise. */
  directory?: string;
  /** Page image in host memory, bytes. */
  bytes: number;
  /** Largest rank of any module; 0 while it is not loaded. */
  rank: number;
  activeRequests: number;
}

/** A change of an adapter's state; what moves between disk, host memory and page pool is not told. */
export interface AdapterEvent {
  name: string;
  /** Whose it is; unset = everybody's. */
  tenant?: string;
  state: Exclude<AdapterState, 'resident'> | 'removed';
  hash?: string;
  error?: LoraxError;
}

export interface RemovedAdapter {
  name: string;
  /** Unset if it never was loaded. */
  hash?: string;
  /** Host memory; 0 while other names stand for the same content. */
  freedBytes: number;
}

export type { EngineStats, TenantStats } from './stats-types.js';
export type { DetokenizeResult, TokenizeRequest, TokenizeResult } from './tokenize-types.js';

export interface EngineAdapters {
  /**
   * Loads it under the name; requests that are under way finish on what the name stood for before, and
   * new ones go on with that until the new content is there. With a version: back to one that the
   * name has stood for.
   */
  add(name: string, source: AdapterSource | AdapterVersion): Promise<AdapterIdentity>;
  /** Resolves when the last request on it has ended and its memory is free. */
  remove(name: string): Promise<RemovedAdapter>;
  /** Which content a known name stands for; loads it if it was not yet. */
  identify(name: string): Promise<AdapterIdentity>;
  /**
   * Fetches and loads it ahead of requests, into the page pool as far as others leave room there.
   * Resolves when it is in host memory. As a hint it needs no catch.
   */
  prefetch(name: string): Promise<AdapterIdentity>;
  /** Loads nothing. */
  list(): Promise<AdapterInfo[]>;
}

export interface TenantOptions {
  /**
   * 0.001 to 1000, default 1. While requests wait, tenants are served like their weights: one of weight
   * 3 gets three times the tokens of one of weight 1.
   */
  weight?: number;
}

/** An engine, or one tenant's view of it. */
export interface EngineView<STATS = TenantStats> {
  ready(): Promise<EngineInfo>;
  generate(request: GenerateRequest): AsyncIterable<TokenEvent>;
  /** All inputs or none: one that cannot be embedded fails the call, and its error says which. */
  embed(request: EmbedRequest): Promise<EmbedResult>;
  /** A prompt's tokens, as a request with it would have them. */
  tokenize(request: TokenizeRequest): Promise<TokenizeResult>;
  detokenize(tokenIds: readonly number[]): Promise<DetokenizeResult>;
  adapters: EngineAdapters;
  stats(): Promise<STATS>;
  /** A tenant's: ends its requests and forgets its adapters. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Engine extends EngineView<EngineStats> {
  /**
   * The engine as one tenant sees it: with names, versions and stats of its own, beside the names that
   * are registered without a tenant. Costs nothing until it is used.
   */
  tenant(id: string, options?: TenantOptions): EngineView;
}
