/**
 * The vocabulary of `lorax-js/engine`: what goes in, what comes out.
 *
 * Types only. The providers (src/ai-sdk/) translate to and from these; the worker fulfils them.
 */

export type Device = 'auto' | 'cpu' | 'cuda';
export type Precision = 'auto' | 'bfloat16' | 'float32';

export interface EngineOptions {
  /** A Hugging Face model directory: config.json, *.safetensors, tokenizer.json. */
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
   * Tokens one engine step computes at most, prefill chunks and decodes together. Default 512 on
   * the CPU, 2048 on a GPU; with `deterministic` never more than 128 on a GPU.
   */
  maxBatchTokens?: number;
  /**
   * On a GPU: a request's tokens do not depend on who shares its batch, at some cost in speed.
   * Default false. On the CPU they never do.
   */
  deterministic?: boolean;
  /** Requests that may wait; one more is refused with QUEUE_FULL. Default 1024. */
  maxQueued?: number;
  onProgress?: (progress: LoadProgress) => void;
}

export interface LoadProgress {
  stage: 'model' | 'adapter';
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

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

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
}

export interface Timing {
  /** Submission to admission. */
  queueMs: number;
  /** Submission to the first token; null if there was none. */
  timeToFirstTokenMs: number | null;
  totalMs: number;
}

export interface AdapterIdentity {
  name: string;
  /** sha256 of its content, hex. */
  hash: string;
}

interface GenerateRequestBase {
  /** Registered name; unset or 'base' = the base model. */
  adapter?: string;
  sampling?: Sampling;
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

export interface DeltaEvent {
  type: 'delta';
  /** May be '' while a character is incomplete or a stop string may be beginning. */
  text: string;
  tokenIds: number[];
  logprobs?: TokenLogprob[];
}

export interface FinishEvent {
  type: 'finish';
  reason: 'stop' | 'length';
  /**
   * 'eos', 'stop-token:<id>', 'stop-string:<text>', 'grammar' (complete, with no stop token to
   * follow), 'max-output-tokens', 'context', 'pool'.
   */
  rawReason: string;
  usage: Usage;
  timing: Timing;
}

export type TokenEvent = StartEvent | DeltaEvent | FinishEvent;

/**
 * Which of a text's final hidden states (after the model's last norm) make its embedding: their
 * mean, the last token's, or the first one's, which in a decoder sees nothing but itself.
 */
export type Pooling = 'mean' | 'last' | 'cls';

export interface EmbedRequest {
  /** Texts, each tokenized as the model's tokenizer does it, end token included where it adds one. */
  input: string[];
  /** Registered name; unset or 'base' = the base model. */
  adapter?: string;
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

export type AdapterSource = string | { directory: string };

export interface AdapterInfo extends AdapterIdentity {
  directory: string;
  /** Page image in host memory, bytes. */
  bytes: number;
  /** Largest rank of any module. */
  rank: number;
  resident: boolean;
  activeRequests: number;
}

export interface EngineStats {
  pages: { total: number; free: number; kv: number; adapter: number; retiring: number };
  requests: { running: number; waiting: number };
  /** Since start. */
  totals: {
    steps: number;
    promptTokens: number;
    outputTokens: number;
    preemptions: number;
    adapterLoads: number;
    adapterEvictions: number;
    finished: number;
    aborted: number;
    failed: number;
  };
  /** The newest steps, oldest first, at most 256. */
  recentSteps: { prefillTokens: number; decodeTokens: number; adapters: number; ms: number }[];
}

export interface Engine {
  ready(): Promise<EngineInfo>;
  generate(request: GenerateRequest): AsyncIterable<TokenEvent>;
  /** All inputs or none: one that cannot be embedded fails the call, and its error says which. */
  embed(request: EmbedRequest): Promise<EmbedResult>;
  adapters: {
    add(name: string, source: AdapterSource): Promise<AdapterIdentity>;
    remove(name: string): Promise<void>;
    /** Those that can be loaded; loads what was not yet. */
    list(): Promise<AdapterInfo[]>;
  };
  stats(): Promise<EngineStats>;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
