/**
 * `lorax-js`: the AI SDK provider (ai 7, spec V4). For ai 6 see `lorax-js/ai6`.
 */
export { createLorax } from './ai-sdk/provider.js';
export type { LoraxAdapters, LoraxOptions, LoraxProvider, LoraxView } from './ai-sdk/provider.js';
export type { LoraxLanguageModel } from './ai-sdk/language-model.js';
export type { LoraxEmbeddingModel, LoraxEmbeddingOptions } from './ai-sdk/embedding-model.js';
export type { LoraxProviderOptions } from './ai-sdk/convert-options.js';
export type { LoraxProviderMetadata } from './ai-sdk/model-types.js';
export { lorax } from './default-provider.js';
export { ERROR_CODES, LoraxError } from './errors.js';
export type { LoraxErrorCode, LoraxErrorData } from './errors.js';
export type * from './types.js';
