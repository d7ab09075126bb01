/**
 * What the command line asks of files without an engine: src/cli/ may import this file of worker/, beside
 * the protocol.
 *
 * It runs in the process of the command, which serves nobody; `lorax-js serve` and the library go
 * through the worker for all of it.
 */
export { loadAddon } from './load-engine.js';
export { readCheckpoint } from './files/checkpoint.js';
export { readDecoderConfig } from './files/decoder-config.js';
export { reportAdapter, type AdapterReport } from './reports/adapter-report.js';
export { reportCache, type CachedRepository } from './reports/cache-report.js';
export {
  adapterBytes,
  reportModel,
  TARGETS,
  type ElementBytes,
  type ModelReport,
} from './reports/model-report.js';
export { hubSettings } from './sources/hub-environment.js';
export { shownSource, SourceFetcher, type FetchCall } from './sources/source-fetcher.js';
