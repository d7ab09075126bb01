/**
 * `lorax-js/next`: what Next.js has to be told about a package that opens files at run time.
 *
 * `withLorax(nextConfig)` keeps the package out of bundles and has its worker, addon and CUDA
 * backend traced into `output: 'standalone'` and serverless builds. It only adds to the user's lists,
 * and adds nothing twice. Runs while Next reads its configuration: it imports neither Next nor the
 * engine.
 */
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkArray, describe, invalidOptions } from './check-shape.js';

const PACKAGE_NAME = 'lorax-js';

/** Opened by path at run time: see platform-packages.ts. Those that are not there match nothing. */
const RUNTIME_FILES = [
  'dist/worker.mjs',
  'build/Release/lorax.node',
  'build/Release/lorax_cuda.so',
  '../@lorax-js/*/lorax.node',
  '../@lorax-js/*/lorax_cuda.so',
];

/** Which routes will ask for a model cannot be known here. */
const EVERY_ROUTE = '/*';

/** The part of Next's configuration that is read and written here. */
interface TracedConfig {
  serverExternalPackages?: string[];
  outputFileTracingIncludes?: Record<string, string[]>;
}

/**
 * @example
 * // next.config.ts
 * export default withLorax({ output: 'standalone' });
 *
 * @param config an object, a promise of one, or a function that returns either, as Next takes them
 * @throws LoraxError INVALID_OPTIONS where a list of the configuration is none
 */
export function withLorax<CONFIG extends object, CONTEXT extends { defaultConfig: object }>(
  config: (phase: string, context: CONTEXT) => CONFIG,
): (phase: string, context: CONTEXT) => CONFIG;
export function withLorax<CONFIG extends object>(config?: CONFIG): CONFIG;
export function withLorax(config: unknown = {}): unknown {
  if (typeof config !== 'function') return extend(config);
  return (...args: unknown[]): unknown => extend(config(...args));
}

function extend(config: unknown): unknown {
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw invalidOptions(
      'nextConfig',
      `withLorax takes Next's configuration: an object or a function, not ${describe(config)}.`,
      config,
    );
  }
  return isPromise(config) ? config.then(extend) : addPackage(config);
}

function isPromise(value: object): value is Promise<unknown> {
  return typeof (value as Partial<Promise<unknown>>).then === 'function';
}

function addPackage(config: TracedConfig): TracedConfig {
  const includes = config.outputFileTracingIncludes ?? {};
  return {
    ...config,
    serverExternalPackages: append(config.serverExternalPackages, 'serverExternalPackages', [
      PACKAGE_NAME,
    ]),
    outputFileTracingIncludes: {
      ...includes,
      [EVERY_ROUTE]: append(
        includes[EVERY_ROUTE],
        `outputFileTracingIncludes[${JSON.stringify(EVERY_ROUTE)}]`,
        tracingGlobs(),
      ),
    },
  };
}

/** `list`, which may be missing, and those of `items` that it lacks. */
function append(list: string[] | undefined, field: string, items: string[]): string[] {
  const present = (checkArray(list, `nextConfig.${field}`) ?? []) as string[];
  return [...new Set([...present, ...items])];
}

/** RUNTIME_FILES as Next wants them: from the project's folder, in which Next runs. */
function tracingGlobs(): string[] {
  const packageRoot = fileURLToPath(new URL('..', import.meta.url));
  const fromProject = relative(process.cwd(), packageRoot).replaceAll('\\', '/') || '.';
  // What is special in a glob is matched by "any character": Next leaves no way to escape it.
  const glob = fromProject.replaceAll(/[*?[\]{}()!,]/g, '?');
  return RUNTIME_FILES.map((file) => `${glob}/${file}`);
}
