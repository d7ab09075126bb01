/**
 * `lorax-js/langchain`: chat model, plain language model and embeddings for LangChain.
 *
 * Needs @langchain/core 1, an optional peer dependency: the app has it.
 */
export { ChatLorax } from './langchain/chat-lorax.js';
export type { ChatLoraxFields } from './langchain/chat-lorax.js';
export type { ChatLoraxCallOptions, ResponseFormat } from './langchain/call-options.js';
export { LoraxEmbeddings } from './langchain/lorax-embeddings.js';
export type { LoraxEmbeddingsFields } from './langchain/lorax-embeddings.js';
export { LoraxLLM } from './langchain/lorax-llm.js';
export type { LoraxLLMCallOptions, LoraxLLMFields } from './langchain/lorax-llm.js';
export type { LoraxResponseMetadata } from './langchain/metadata.js';
export type { EngineFields, SamplingFields } from './langchain/model-fields.js';
export type { LoraxGenerationInfo } from './langchain/plain-answer.js';
export { ERROR_CODES, LoraxError } from './errors.js';
export type { LoraxErrorCode, LoraxErrorData } from './errors.js';
export type * from './types.js';
