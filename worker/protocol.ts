/**
 * The border between the main thread and the worker: types only; the one worker file src/ imports.
 *
 * One MessagePort per engine. Text and ids cross, and no tensor but the embeddings that an `embed`
 * asked for, once: one message per engine step from the worker, one per microtask of the client.
 * Every `generate` ends in exactly one of finish, aborted, failed, every `embed` in exactly one of
 * embedded, aborted, failed.
 */
import type { WeightedAdapter } from '../src/adapter-mix.js';
import type {
  AdapterIdentity,
  ChatMessage,
  Constraint,
  DetokenizeResult,
  EngineInfo,
  EngineStats,
  FinishEvent,
  HubOptions,
  LoadProgress,
  Pooling,
  ReasoningDeltaEvent,
  RemovedAdapter,
  Sampling,
  Timing,
  TokenizeResult,
  TokenLogprob,
  ToolCallEvent,
  ToolChoice,
  ToolDefinition,
  Usage,
} from '../src/types.js';

/** What the Piscina task is given; the port rides in its transfer list. */
export interface ServeTask {
  port: MessagePortLike;
  options: ServeOptions;
}

/** The structural type of node:worker_threads' MessagePort, so that this file imports no module. */
export interface MessagePortLike {
  postMessage(message: unknown): void;
  close(): void;
}

/** Where an adapter's files are, credentials included. */
export type WireSource =
  | { kind: 'directory'; directory: string }
  /** The subfolder of that name, which comes from an app's clients. */
  | { kind: 'folder'; folder: string; name: string }
  | WireHubSource
  /** A folder's address. */
  | { kind: 'url'; url: string; headers: Record<string, string> }
  | {
      kind: 's3';
      bucket: string;
      /** Without slashes at its ends; may be empty. */
      prefix: string;
      endpoint?: string;
      region?: string;
      credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
    };

export interface WireHubSource {
  kind: 'hub';
  /** org/name */
  repository: string;
  revision: string;
  /** Unset: the environment's. False: none. */
  token?: string | false;
}

export interface ServeOptions {
  /** Absolute. */
  model: string;
  /** What `model` may mean where no such directory is there. */
  hubModel: WireHubSource | null;
  hub: HubOptions;
  device: 'auto' | 'cpu' | 'cuda';
  precision: 'auto' | 'bfloat16' | 'float32';
  /** 0 = choose. */
  memoryBytes: number;
  /** Likewise. */
  hostMemoryBytes: number;
  maxBatchTokens: number;
  maxQueued: number;
  /** (0, 1]; of the GPU's free memory, where memoryBytes is 0. */
  memoryFraction: number;
  deterministic: boolean;
  /** Candidate paths of lorax.node, in order; resolved by the main thread from literal URLs. */
  addonPaths: string[];
  /** Likewise of lorax_cuda.so. */
  cudaPluginPaths: string[];
}

export interface WireError {
  code: string;
  message: string;
  data: Record<string, unknown>;
}

export type WirePrompt =
  | { kind: 'messages'; messages: ChatMessage[] }
  | { kind: 'text'; text: string }
  | { kind: 'tokens'; tokens: number[] };

/** A schema travels as JSON text: checked to be JSON, and a key to what was compiled before. */
export type WireConstraint =
  { type: 'json'; schema: string } | Exclude<Constraint, { type: 'json' }>;

/** What a request may call; absent where it may call nothing. */
export interface WireTools {
  definitions: ToolDefinition[];
  choice: Exclude<ToolChoice, 'none'>;
  parallel: boolean;
}

/** Whose turn a request has, and until when it is of use. */
export interface WireService {
  /** Whose request it is. */
  tenant?: string;
  tenantWeight?: number;
  priority?: number;
  /** As Date.now() counts. */
  deadlineAt?: number;
}

export interface GenerateCommand extends WireService {
  type: 'generate';
  id: number;
  prompt: WirePrompt;
  /** Empty = the base model. */
  adapters: WeightedAdapter[];
  sampling: Sampling;
  constraint?: WireConstraint;
  tools?: WireTools;
  reasoning?: boolean;
  cacheScope?: string;
}

export interface EmbedCommand extends WireService {
  type: 'embed';
  id: number;
  input: string[];
  /** Empty = the base model. */
  adapters: WeightedAdapter[];
  pooling: Pooling;
  normalize: boolean;
}

export type ClientCommand =
  | GenerateCommand
  | EmbedCommand
  | { type: 'cancel'; id: number }
  | { type: 'ready'; call: number }
  | {
      type: 'addAdapter';
      call: number;
      name: string;
      source: WireSource;
      /** Whose it is; unset = everybody's. */
      tenant?: string;
      /** What its content must be. */
      hash?: string;
    }
  /** Of an addAdapter: it ends with an error, unless it has come too far. */
  | { type: 'cancelCall'; call: number }
  /** Answered when the last request on it has ended. */
  | { type: 'removeAdapter'; call: number; name: string }
  | { type: 'prefetchAdapter'; call: number; name: string }
  | { type: 'listAdapters'; call: number }
  | { type: 'stats'; call: number }
  | {
      type: 'tokenize';
      call: number;
      prompt: Exclude<WirePrompt, { kind: 'tokens' }>;
      addSpecialTokens: boolean;
      tools?: WireTools;
      reasoning?: boolean;
    }
  | { type: 'detokenize'; call: number; tokenIds: number[] }
  /** Ends every request, stops and joins the engine; the worker answers, then closes the port. */
  | { type: 'dispose'; call: number };

/** Adapter names are opaque here: src/ prefixes them per provider, the registry only compares them. */
export type ClientMessage = ClientCommand[];

export type WorkerEvent =
  | {
      type: 'start';
      id: number;
      adapter: AdapterIdentity | null;
      promptTokens: number;
      cachedTokens: number;
      queueMs: number;
    }
  | { type: 'delta'; id: number; text: string; tokenIds: number[]; logprobs?: TokenLogprob[] }
  /** A part of the answer that is no text; ids and logprobs of its tokens come in deltas. */
  | ({ id: number } & (ReasoningDeltaEvent | ToolCallEvent))
  | {
      type: 'finish';
      id: number;
      reason: FinishEvent['reason'];
      rawReason: string;
      usage: Usage;
      timing: Timing;
    }
  | {
      type: 'embedded';
      id: number;
      /** One for each input, [hidden size], each with a buffer of its own. */
      embeddings: Float32Array[];
      promptTokens: number;
      adapter: AdapterIdentity | null;
    }
  | { type: 'aborted'; id: number; usage: Usage; timing: Timing }
  | { type: 'failed'; id: number; error: WireError; usage: Usage; timing: Timing }
  | { type: 'progress'; progress: LoadProgress }
  /** Of an addAdapter: its files are here. */
  | { type: 'fetched'; call: number }
  /** For process.emitWarning, which only the main thread's listeners can hear. */
  | { type: 'notice'; code: string; message: string }
  | { type: 'result'; call: number; value: CallResult }
  | { type: 'error'; call: number; error: WireError };

/** What the worker has under a name. */
export interface LoadedAdapter {
  hash: string;
  /** Of its files. */
  directory: string;
}

export interface WorkerAdapter {
  name: string;
  bytes: number;
  rank: number;
  inHost: boolean;
  resident: boolean;
  activeRequests: number;
}

export type CallResult =
  | EngineInfo
  | LoadedAdapter
  | RemovedAdapter
  | WorkerAdapter[]
  | EngineStats
  | TokenizeResult
  | DetokenizeResult
  | null;

export type WorkerMessage = WorkerEvent[];
