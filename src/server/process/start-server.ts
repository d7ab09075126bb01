/**
 * One engine, one server, one process: everything `lorax-js serve` has, put together from a ServeConfig.
 *
 * It listens before the model is loaded, so that probes hear the truth (/health: lives, /ready: not yet).
 * Installs no signal handlers and writes nowhere but to its log; the command does that.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { cors } from 'hono/cors';
import { adaptersInFolder } from '../../adapter-folder.js';
import { resolveAdapterSource } from '../../adapter-source.js';
import { invalidOptions } from '../../check-shape.js';
import { createEngineWithNames } from '../../create-engine.js';
import { LoraxError } from '../../errors.js';
import type { Engine, EngineInfo, EngineOptions, LoadProgress } from '../../types.js';
import { connectProcess } from '../../process-connection.js';
import { connectWorker } from '../../worker-connection.js';
import { createAccess } from '../access/access.js';
import { createServer, type LoraxServer } from '../create-server.js';
import { ServerMetrics } from '../metrics/server-metrics.js';
import { baseModelName } from '../model-name.js';
import { serveOnNode, type ListenOptions, type NodeServer } from '../serve-on-node.js';
import type { ServeConfig } from '../serve-config.js';
import { Dashboard } from '../ui/dashboard.js';
import { keepEngine } from './engine-keeper.js';
import { Lifecycle } from './lifecycle.js';
import { observeEngine } from './observed-engine.js';
import { scopeMiddleware } from './request-scope.js';
import { createLog, logMiddleware, logObserver, type ServerLog } from './server-log.js';
import { cutStalledReaders } from './stalled-readers.js';
import { traceObserver } from './tracing.js';

/** Sizes are numbers by now (cli/serve/resolve-config.ts). */
export type ServerSettings = Omit<
  ServeConfig,
  'memory' | 'hostMemory' | 'maxBody' | 'maxHeader'
> & { memory?: number; hostMemory?: number; maxBody?: number; maxHeader?: number };

export interface StartHooks {
  onProgress?: (progress: LoadProgress) => void;
  log?: ServerLog;
}

export interface RunningServer {
  url: string;
  node: NodeServer;
  engine: Engine;
  log: ServerLog;
  /** Nobody needs a key. */
  open: boolean;
  /** The model is loaded; rejects where it cannot be. */
  loaded: Promise<EngineInfo>;
  /** Lets what is under way end within the time; whether it did. Idempotent. */
  close(graceMs: number): Promise<boolean>;
}

const DEFAULT_MAX_QUEUED = 1024;
const RETRY_AFTER_SECONDS = 2;
/** For error events and the ends of answers to leave, once the time is over. */
const FLUSH_MS = 1_000;

/** Throws INVALID_OPTIONS. */
export async function startServer(
  settings: ServerSettings,
  hooks: StartHooks = {},
): Promise<RunningServer> {
  const log = hooks.log ?? createLog(settings);
  const { model } = settings;
  if (model === undefined) {
    throw invalidOptions('model', 'There is no model: give --model, LORAX_MODEL or model.');
  }
  const modelName = baseModelName(settings as { modelName: string | undefined }, { model });
  const metrics = new ServerMetrics(() => engine, modelName);
  const dashboard = new Dashboard(() => engine, { modelName });
  const made = createEngineWithNames(
    settings.isolate === true ? connectProcess : connectWorker,
    engineOptions(settings, model, metrics, hooks),
  );
  const engine: Engine = observeEngine(made.engine, [
    ...metrics.observers,
    ...(settings.ui === 'off' ? [] : [dashboard.observer]),
    logObserver(log),
    traceObserver(modelName),
    keepEngine(() => engine, {
      lost: (error) => {
        metrics.engineLost();
        dashboard.engineIsLost(error);
        log.error({ code: error.code }, error.message);
      },
      back: () => {
        dashboard.engineIsBack();
        log.info('the engine is back');
      },
      gone: (error) => {
        dashboard.engineIsGone(error);
        log.fatal({ code: codeOf(error) }, 'the engine does not come back');
      },
    }),
  ]);
  try {
    declareAdapters(settings, made.declare);
    const access = createAccess(engine, settings);
    const { maxQueued = DEFAULT_MAX_QUEUED } = settings;
    const lifecycle = new Lifecycle(engine, { maxQueued, retryAfterSeconds: RETRY_AFTER_SECONDS });
    const { corsOrigins = [] } = settings;
    const server = createServer({
      ...{ engine: access.engine, modelName, maxWaiting: maxQueued },
      ...(settings.adapterUpdates === true
        ? { adapterUpdates: { sources: settings.adapterSources ?? [] } }
        : {}),
      ...(settings.maxBody === undefined ? {} : { maxBodyBytes: settings.maxBody }),
      middleware: [
        scopeMiddleware,
        logMiddleware(log, settings.logPrompts ?? false),
        ...(corsOrigins.length === 0 ? [] : [corsFor(corsOrigins)]),
        lifecycle.middleware,
        access.middleware,
      ],
    });
    if (settings.metrics !== 'off') metrics.register(server.app);
    if (settings.ui !== 'off') dashboard.register(server.app, lifecycle);
    const door: LoraxServer['door'] = (method, path) => {
      const refusal = lifecycle.isDraining ? undefined : server.door(method, path);
      if (refusal !== undefined) metrics.refused();
      return refusal;
    };
    const node = await serveOnNode({ fetch: server.fetch, door }, listenOptions(settings));
    node.server.maxConnections = settings.maxConnections ?? 4096;
    lifecycle.watch(node.server);
    cutStalledReaders(node.server, settings.stallTimeoutMs ?? 30_000);
    const loaded = engine.ready();
    loaded.then(
      (info) => log.info({ device: info.deviceDescription, pages: info.numPages }, 'loaded'),
      () => undefined,
    );
    checkAdapters(settings, engine, loaded, log);
    let closing: Promise<boolean> | undefined;
    const close = async (graceMs: number) => {
      log.info({ open: lifecycle.numOpen, graceMs }, 'draining');
      const drained = await lifecycle.drain(graceMs);
      if (!drained) log.warn({ open: lifecycle.numOpen }, 'the grace period is over');
      // Streams that are still open hear of it in an error event.
      await made.engine.dispose();
      if (!drained) await Promise.race([lifecycle.drain(FLUSH_MS), sleep(FLUSH_MS)]);
      await node.close({ graceMs: 0 });
      return drained;
    };
    return {
      ...{ url: node.url, node, engine, log, open: access.open, loaded },
      close: (graceMs) => (closing ??= close(graceMs)),
    };
  } catch (error) {
    await made.engine.dispose();
    throw error;
  }
}

function engineOptions(
  settings: ServerSettings,
  model: string,
  metrics: ServerMetrics,
  { onProgress }: StartHooks,
): EngineOptions {
  const { device, precision, memory, memoryFraction, hostMemory } = settings;
  const { maxBatchTokens, maxQueued, deterministic, sources = [], adapterFolder } = settings;
  const given = {
    ...{ device, precision, memoryFraction, maxBatchTokens, maxQueued, deterministic },
    ...{ memoryBytes: memory, hostMemoryBytes: hostMemory, onProgress },
  };
  return {
    ...{ model, onAdapter: metrics.onAdapter },
    sources: [...(adapterFolder === undefined ? [] : [{ folder: adapterFolder }]), ...sources],
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
}

/** Those of the configuration, and those that lie in the folder now; loaded when first asked for. */
function declareAdapters(
  { adapters = {}, adapterFolder }: ServerSettings,
  declare: ReturnType<typeof createEngineWithNames>['declare'],
): void {
  const inFolder =
    adapterFolder === undefined ? {} : adaptersInFolder(adapterFolder, 'adapterFolder');
  for (const [name, source] of Object.entries({ ...inFolder, ...adapters })) {
    declare(name, resolveAdapterSource(source, `adapters.${name}`));
  }
}

/** What the configuration names is looked at now: its first request is not to find out. */
function checkAdapters(
  { adapters = {} }: ServerSettings,
  engine: Engine,
  loaded: Promise<EngineInfo>,
  log: ServerLog,
): void {
  const check = async () => {
    await loaded;
    for (const name of Object.keys(adapters)) {
      await engine.adapters.identify(name).catch((error: unknown) => {
        log.error({ adapter: name, code: codeOf(error) }, (error as Error).message);
      });
    }
  };
  check().catch(() => undefined);
}

function corsFor(origins: readonly string[]) {
  return cors({
    origin: origins.includes('*') ? '*' : [...origins],
    allowMethods: ['GET', 'POST'],
    allowHeaders: ['authorization', 'content-type', 'x-request-id', 'traceparent', 'tracestate'],
    exposeHeaders: ['x-request-id', 'retry-after', 'retry-after-ms'],
    maxAge: 600,
  });
}

function listenOptions(settings: ServerSettings): ListenOptions {
  const { port, host, requestTimeoutMs, maxHeader, tlsKey, tlsCert } = settings;
  const given = { port, host, requestTimeoutMs, maxHeaderBytes: maxHeader };
  if ((tlsKey === undefined) !== (tlsCert === undefined)) {
    throw invalidOptions('tlsKey', 'TLS needs both tlsKey and tlsCert.');
  }
  const tls =
    tlsKey === undefined || tlsCert === undefined
      ? {}
      : { tls: { key: readPem(tlsKey, 'tlsKey'), cert: readPem(tlsCert, 'tlsCert') } };
  return {
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    ...tls,
  };
}

function readPem(file: string, field: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw invalidOptions(field, `${field}: ${file} cannot be read: ${(cause as Error).message}`);
  }
}

const codeOf = (error: unknown) => (LoraxError.isInstance(error) ? error.code : 'INTERNAL');
