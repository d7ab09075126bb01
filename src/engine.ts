/**
 * `lorax-js/engine`: one engine of one's own, without any framework.
 */
export { createEngine } from './create-engine.js';
export { ERROR_CODES, LoraxError } from './errors.js';
export type { LoraxErrorCode, LoraxErrorData } from './errors.js';
export type * from './types.js';
