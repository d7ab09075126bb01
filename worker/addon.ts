/**
 * The whole native surface as one interface; native/binding/ implements it, nothing else calls it.
 *
 * Only integers, typed arrays and plain objects cross. Native code parses no JSON and guesses no
 * path: worker/files/ turns directories into the specs below. Tensors never cross, only where they
 * lie on disk; an embedding is the one vector that does, once. Failures from native code are Errors
 * with `code` (a LoraxErrorCode) and `data`.
 */

/** Where one tensor lies on disk: `rows x cols` row-major (a vector has rows = 1). */
export interface NativeTensor {
  /** Full name in the file, for errors. */
  name: string;
  /** Index into `files`. */
  file: number;
  dtype: 'F32' | 'F16' | 'BF16';
  rows: number;
  cols: number;
  /** Bytes from the start of the file. */
  offset: number;
}

/** Flat numbers; every variant of the decoder is a field here. */
export interface DecoderConfig {
  architecture: string;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  rmsNormEps: number;
  /** max_position_embeddings. */
  contextTokens: number;
  tiedEmbeddings: boolean;
  qkvBias: boolean;
  qkNorm: boolean;
  /** 0 = full attention. */
  slidingWindow: number;
  ropeTheta: number;
  rope:
    | { type: 'default' }
    | { type: 'linear'; factor: number }
    /**
     * Native freezes the base at contextTokens C, with ropeTheta as the config has it:
     * theta * (factor * C / originalContext - (factor - 1)) ^ (headDim / (headDim - 2)).
     */
    | { type: 'dynamic'; factor: number; originalContext: number }
    | {
        type: 'llama3';
        factor: number;
        lowFreqFactor: number;
        highFreqFactor: number;
        originalContext: number;
      }
    | {
        type: 'yarn';
        factor: number;
        originalContext: number;
        betaFast: number;
        betaSlow: number;
        /** Resolved: multiplies cos and sin. */
        attentionFactor: number;
        truncate: boolean;
      };
}

export interface NativeModelSpec {
  config: DecoderConfig;
  /** Absolute paths. */
  files: string[];
  /** Hugging Face names ("model.layers.0.self_attn.q_proj.weight"). Complete and of right shape. */
  tensors: NativeTensor[];
}

/**
 * Ids of the seven projections, then of what is there once, as of layer 0; order is part of the contract
 * (native/lora/adapter.h).
 */
export const MODULES = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
  'lm_head',
  'embed_tokens',
] as const;

export interface NativeAdapterModule {
  layer: number;
  /** Index into MODULES. */
  module: number;
  rank: number;
  /** lora_alpha / r, or lora_alpha / sqrt(r). */
  scale: number;
  /** [rank, d_in]; with b, unless rank is 0. d_in of embed_tokens is the vocabulary. */
  a?: NativeTensor;
  /** [d_out, rank] */
  b?: NativeTensor;
  /** [d_out]: B has a bias, which is scaled as B is. */
  bBias?: NativeTensor;
  /** [d_out]: DoRA. The norms of the merged weights are computed when it is read. */
  magnitude?: NativeTensor;
  /** [vocab, hidden], in place of the base's; of lm_head and embed_tokens alone. */
  whole?: NativeTensor;
}

/** NativeAdapterModules as packModules() (worker/files/pack-modules.ts) writes them. */
export interface PackedModules {
  /**
   * Of each module [layer, module, rank, scale, has], and of each tensor it has (bits of `has`: a, b,
   * bBias, magnitude, whole) [file, dtype (0 F32, 1 F16, 2 BF16), rows, cols, offset, bytes of its name].
   */
  numbers: Float64Array;
  /** Of the tensors, one after another, in UTF-8. */
  names: Uint8Array;
}

export interface NativeAdapterSpec {
  /** sha256 of the content, hex. */
  hash: string;
  files: string[];
  modules: PackedModules;
}

export interface NativeEngineConfig {
  model: NativeModelSpec;
  device: 'auto' | 'cpu' | 'cuda';
  precision: 'bfloat16' | 'float32';
  /** 0 = choose. */
  memoryBytes: number;
  /** 0 = choose; the device may have a limit of its own. */
  maxBatchTokens: number;
  maxQueued: number;
  /** For images of adapters. */
  hostMemoryBytes: number;
  /** 0 = one per core. */
  threads: number;
  /** Which instruction set the CPU backend uses; all but 'auto' are for tests. */
  isa: 'auto' | 'amx' | 'avx512' | 'avx2' | 'portable';
  cuda: {
    /** Path of lorax_cuda.so; '' = there is none. */
    plugin: string;
    /** As the CUDA runtime counts. */
    device: number;
    /** (0, 1]: of the memory left after weights and buffers, where memoryBytes is 0. */
    memoryFraction: number;
    /** Kernel choices measured on this device are kept here; '' = nowhere. Made when needed. */
    cacheDirectory: string;
    /** A sequence's numbers do not depend on its neighbours. (On the CPU they never do.) */
    deterministic: boolean;
  };
}

/** y += weight * scale * B (A x). */
export interface NativeAdapterUse {
  handle: number;
  /** A finite float32. */
  weight: number;
  /** What comes before runs on the base; default 0. */
  firstPosition?: number;
}

/** Everything resolved: no field is optional. */
export interface NativeSampling {
  /** Tokens to generate at most; 0 = what context and pool allow. */
  maxOutputTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  repetitionPenalty: number;
  frequencyPenalty: number;
  presencePenalty: number;
  logitBiasIds: Int32Array;
  logitBiasValues: Float32Array;
  /** Two 32-bit halves, low first. */
  seed: [number, number];
  /** -1 = none; else alternatives per token, 0..20. */
  logprobs: number;
  /** Generation stops when one of these is sampled (it is reported, as the last token). */
  stopTokenIds: Int32Array;
}

/** Whose turn a request has, until when, and with whom it shares KV; an unset field is its default. */
export interface NativeService {
  /** Who is served alike with others; '' (default): told apart from others without one by adapters. */
  tenant?: string;
  /** Finite, above 0; of all that is served, tenants get shares like their weights. Default 1. */
  tenantWeight?: number;
  /** Of a tenant's requests, higher ones come first. Default 0. */
  priority?: number;
  /** From now on; 0 or less: it is over already. Default: none. */
  deadlineMs?: number;
  /** KV is shared with requests of the same scope. Default ''. */
  cacheScope?: string;
}

/** How a prompt's final hidden states become one vector; the names are those of src/types.ts. */
export interface NativeEmbedding {
  pooling: 'mean' | 'last' | 'cls';
  normalize: boolean;
}

/**
 * What every token spells: bytes of token i are `bytes[offsets[i] .. offsets[i + 1])`. Special tokens
 * spell nothing. It may know fewer or more tokens than the model; those only one knows spell nothing.
 */
export interface NativeVocabulary {
  bytes: Uint8Array;
  offsets: Uint32Array;
}

/** A compiled grammar of one engine. Its memory is freed with the last reference and request. */
export interface NativeGrammar {
  /** Tokens in which every output can be closed that has only begun; maxOutputTokens allows for it. */
  readonly shortestTokens: number;
}

/**
 * What a request's output must match.
 *
 * Without triggers all of it matches `root`. With triggers it is free until its bytes end with one of
 * them (a number: until that token), and `root` governs from there on; a stop token is allowed before
 * a trigger and where `root` is complete.
 */
export interface NativeConstraint {
  grammar: NativeGrammar;
  triggers?: readonly (string | number)[];
}

export interface NativeEngineInfo {
  device: 'cpu' | 'cuda';
  deviceDescription: string;
  numPages: number;
  pageBytes: number;
  blockTokens: number;
}

export interface NativeAdapterInfo {
  handle: number;
  bytes: number;
  inHost: boolean;
  /** In pool pages, or on its way there. */
  resident: boolean;
  activeRequests: number;
}

export interface NativeStats {
  pages: {
    total: number;
    free: number;
    kv: number;
    cold: number;
    adapter: number;
    retiring: number;
  };
  host: { bytes: number; budgetBytes: number; images: number };
  running: number;
  waiting: number;
  steps: number;
  promptTokens: number;
  cachedTokens: number;
  outputTokens: number;
  preemptions: number;
  prefixHits: number;
  prefixMisses: number;
  prefixEvictions: number;
  adapterHits: number;
  adapterLoads: number;
  adapterEvictions: number;
  hostDrops: number;
  hostReads: number;
  /** From one admission to the next while requests wait, on average; 0: not measured yet. */
  admissionUs: number;
  finished: number;
  aborted: number;
  failed: number;
  /** Newest steps, oldest first: [prefillTokens, decodeTokens, adapters, microseconds] each. */
  recentSteps: Int32Array;
}

/**
 * Records of `StepEvents.ints`, one after another; the first word says which.
 *
 *   Started   [1, request, queueMicroseconds, cachedTokens]
 *   Tokens    [2, request, count, numTop, tokenId x count, then if numTop >= 0:
 *              topTokenId x (count * numTop)]      numTop = -1: no logprobs
 *              and in `floats`: per token 1 + numTop logprobs (its own, then the alternatives')
 *   Finished  [3, request, reason, outputTokens]   reason: FINISH_REASONS; follows its last Tokens
 *   Aborted   [4, request, outputTokens]           the answer to cancel()
 *   Failed    [5, request, indexIntoFailures, outputTokens]
 *   Embedded  [6, request, size]                   and in `floats`: the embedding, `size` values
 *
 * Exactly one of Finished, Aborted, Failed per submitted request; Embedded instead of Finished where
 * it is embedded. Nothing for it afterwards.
 */
export const EVENT = {
  Started: 1,
  Tokens: 2,
  Finished: 3,
  Aborted: 4,
  Failed: 5,
  Embedded: 6,
} as const;

/**
 * `stop-token`: one of stopTokenIds was sampled; it is the last token reported. `grammar`: the output
 * is complete as its grammar has it, and no stop token could follow. `deadline`: what there was by then.
 */
export const FINISH_REASONS = [
  'stop-token',
  'max-output-tokens',
  'context',
  'pool',
  'grammar',
  'deadline',
] as const;

export interface NativeFailure {
  code: string;
  message: string;
  data: Record<string, number | string | boolean>;
}

export interface StepEvents {
  ints: Int32Array;
  floats: Float32Array;
  failures: NativeFailure[];
}

export interface NativeEngine {
  info(): NativeEngineInfo;
  /** Reads, checks and packs off the engine's thread. Resolves to a handle. */
  addAdapter(spec: NativeAdapterSpec): Promise<number>;
  /** Its requests in flight finish; its memory is freed with the last one. */
  removeAdapter(handle: number): void;
  /** The same content lies in these files, too: it is read from there when it is read again. */
  relocateAdapter(handle: number, spec: NativeAdapterSpec): void;
  /** Brings it to where a request on it starts quickest, as far as others leave room. */
  prefetchAdapter(handle: number): void;
  adapters(): NativeAdapterInfo[];
  /** Once, before the first grammar. The arrays are copied. */
  setVocabulary(vocabulary: NativeVocabulary): void;
  /**
   * GBNF (native/grammar/gbnf_parser.h says which) -> a compiled grammar, off the engine's thread.
   * Equal texts share one. A fault is GRAMMAR_INVALID with `line`, `column` and, where there is one,
   * `rule` in its data.
   */
  compileGrammar(text: string): Promise<NativeGrammar>;
  /**
   * `request`: the caller's id, unique among open ones, 1..2^31-1. `adapters`: distinct handles, at
   * most 8; empty for the base. Refusals (CONTEXT_TOO_LONG, POOL_EXHAUSTED, QUEUE_FULL,
   * DEADLINE_EXCEEDED; INVALID_OPTIONS where maxOutputTokens is below the grammar's shortestTokens)
   * arrive as Failed events.
   */
  submit(
    request: number,
    promptTokens: Int32Array,
    adapters: readonly NativeAdapterUse[],
    sampling: NativeSampling,
    constraint?: NativeConstraint,
    service?: NativeService,
  ): void;
  /** As submit(), but the prompt is embedded and nothing generated. */
  embed(
    request: number,
    promptTokens: Int32Array,
    adapters: readonly NativeAdapterUse[],
    embedding: NativeEmbedding,
    service?: NativeService,
  ): void;
  /** Unknown or ended ids are ignored. */
  cancel(request: number): void;
  stats(): NativeStats;
  /** Fails what is open with DISPOSED, joins the thread, frees everything. Idempotent. */
  stop(): Promise<void>;
}

/** One sequence at a time, outside any batch: what goldens and accuracy tests read logits from. */
export interface NativeEvaluator {
  /** Reads, checks and packs; stays resident. Returns a handle. */
  addAdapter(spec: NativeAdapterSpec): number;
  /**
   * Float32 logits of every position, [tokens, vocabSize] row-major. `adapters` as in submit(), of
   * its own handles. Prefills in steps of maxBatchTokens rows.
   */
  logits(tokens: Int32Array, adapters: readonly NativeAdapterUse[]): Float32Array;
}

/** One output's way through a grammar, outside of any engine: what tests of grammars look at. */
export interface NativeMatcher {
  /** As NativeGrammar has it. */
  readonly shortestTokens: number;
  /** The output may end here. */
  readonly mayEnd: boolean;
  /** Tokens that may come next, with `left` tokens left, this one too; one that is forced alone. */
  allowed(left: number): Int32Array;
  /** False, and nothing changes, for a token that may not come next. */
  accept(token: number): boolean;
  /** Accepts the tokens that have to come next, and says which. */
  takeForced(left: number): Int32Array;
}

export interface EngineAddon {
  /** Loads weights off-thread. `onEvents`: at most once per engine step; coalesced if JS is late. */
  createEngine(
    config: NativeEngineConfig,
    onEvents: (events: StepEvents) => void,
    onProgress: (loadedBytes: number, totalBytes: number) => void,
  ): Promise<NativeEngine>;
  /** For tests and goldens: the same decoder without an engine. Loads and runs on the calling thread. */
  createEvaluator(config: NativeEngineConfig): NativeEvaluator;
  /** For tests: compiles on the calling thread. Throws GRAMMAR_INVALID. */
  createMatcher(
    vocabulary: NativeVocabulary,
    text: string,
    triggers?: readonly (string | number)[],
  ): NativeMatcher;
}
