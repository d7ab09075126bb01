/**
 * The errors that the engine client raises itself, and those of the wire in its callers' names.
 *
 * Names travel with their scope as a prefix; no error that a caller sees holds one. Called by
 * engine-client.ts, shared-engines.ts and the fake engine.
 */
import type { WireError } from '../worker/protocol.js';
import type { AdapterScope } from './adapter-scope.js';
import { ERROR_CODES, LoraxError } from './errors.js';
import type { LoraxErrorCode } from './errors.js';

export function disposedError(): LoraxError {
  return new LoraxError('DISPOSED', 'This engine or provider has been disposed.');
}

export function unaskedAbort(): LoraxError {
  return new LoraxError('ENGINE_LOST', 'The engine ended this request without being asked to.');
}

/**
 * `known`: the names that the caller could have used. `asked`: where else it was looked for, which is
 * no business of an app's clients, so only the cause tells it.
 */
export function unknownAdapter(name: string, known: string[], asked: string[] = []): LoraxError {
  const list = known.length === 0 ? 'none is registered' : `registered: ${shortList(known)}`;
  const cause = asked.length === 0 ? undefined : new Error(`It is not at ${asked.join(', ')}.`);
  return new LoraxError(
    'ADAPTER_NOT_FOUND',
    `There is no adapter named ${JSON.stringify(name)} (${list}).`,
    { data: { adapter: name, known }, cause },
  );
}

export function unknownVersion(name: string, hash: string, known: string[]): LoraxError {
  const list = known.length === 0 ? 'none' : known.map((each) => each.slice(0, 12)).join(', ');
  return new LoraxError(
    'ADAPTER_NOT_FOUND',
    `There is no one version ${JSON.stringify(hash)} of ${JSON.stringify(name)} (known: ${list}).`,
    { data: { adapter: name, hash, known } },
  );
}

/** Of thousands the first. */
function shortList(names: readonly string[]): string {
  const [shown, more] = [names.slice(0, 20).join(', '), names.length - 20];
  return more > 0 ? `${shown} and ${more} more` : shown;
}

/** For text that can be no adapter's name, whatever is registered. */
export function malformedAdapterName(name: string, hint = ''): LoraxError {
  const rule =
    'a name has letters, digits and _ . - / @ :, starts with a letter or digit and holds no "..".';
  const message = `${JSON.stringify(name.slice(0, 100))} is no adapter name: ${rule} ${hint}`;
  return new LoraxError('ADAPTER_NOT_FOUND', message.trimEnd(), { data: { adapter: name } });
}

export function fromWire({ code, message, data }: WireError): LoraxError {
  const known: readonly string[] = ERROR_CODES;
  // A code this version does not know can only be a defect of the engine.
  const knownCode = known.includes(code) ? (code as LoraxErrorCode) : 'ENGINE_LOST';
  return new LoraxError(knownCode, message, { data });
}

/** The same error in the names its caller used. */
export function withoutScope(error: unknown, scope: string): unknown {
  if (scope === '' || !LoraxError.isInstance(error)) return error;
  const strip = (value: unknown): unknown => {
    if (typeof value === 'string') return value.replaceAll(scope, '');
    return Array.isArray(value) ? value.map(strip) : value;
  };
  const data = Object.fromEntries(
    Object.entries(error.data).map(([key, value]) => [key, strip(value)]),
  );
  return new LoraxError(error.code, error.message.replaceAll(scope, ''), {
    data,
    ...(error.cause === undefined ? {} : { cause: error.cause }),
  });
}

/** Both the caller's own names and those it shares. */
export function withoutScopes(error: unknown, { own, shared }: AdapterScope): unknown {
  return withoutScope(withoutScope(error, own), shared);
}
