/**
 * `lorax-js/server`: an engine behind HTTP, for OpenAI's, vLLM's and LoRAX's clients.
 */
export { createServer } from './server/create-server.js';
export type { LoraxServer } from './server/create-server.js';
export type {
  ServerApp,
  ServerContext,
  ServerEnv,
  ServerMiddleware,
  ServerVariables,
} from './server/environment.js';
export { startServer } from './server/process/start-lazily.js';
export type { RunningServer, ServerSettings, StartHooks } from './server/process/start-server.js';
export { HttpError } from './server/http-error.js';
export type { ErrorBody, HttpErrorOptions } from './server/http-error.js';
export { toNodeHandler } from './server/node-handler.js';
export type { NodeHandler } from './server/node-handler.js';
export { serveOnNode } from './server/serve-on-node.js';
export type { ListenOptions, NodeServer } from './server/serve-on-node.js';
export { defineConfig } from './server/serve-config.js';
export type { KeyText, ServeConfig, Size, TenantConfig } from './server/serve-config.js';
export type { ServerOptions } from './server/server-options.js';
export { LoraxError } from './errors.js';
