/**
 * `lorax-js/test`: the engine and the provider with scripted answers, for the tests of apps.
 *
 * Nothing here needs a model, a worker or native code.
 */
import type { BASE_MODEL } from './adapter-name.js';
import { buildProvider, checkAdapters } from './ai-sdk/provider.js';
import type { LoraxProvider } from './ai-sdk/provider.js';
import { checkObject, checkString } from './check-shape.js';
import { checkSampling } from './sampling-options.js';
import { FakeEngine } from './testing/fake-engine.js';
import type { FakeAnswer } from './testing/fake-answer.js';
import type { FakeEngineOptions } from './testing/fake-engine.js';
import type { AdapterSource, Engine, Sampling } from './types.js';

export { LoraxError } from './errors.js';
export type { FakeAnswer, FakeReply, FakeRequest, FakeScript } from './testing/fake-answer.js';
export type { FakeEngineOptions } from './testing/fake-engine.js';

export interface FakeLoraxOptions<NAME extends string = string> {
  /** By adapter name; 'base' is the base model. Its names are registered from the start. */
  answers?: Partial<Record<NAME | 'base', FakeAnswer>>;
  /** Pause before each token, ms. */
  tokenMs?: number;
  /** More names, as an app's own options have them; their directories are not looked at. */
  adapters?: Record<string, AdapterSource>;
  defaults?: Sampling;
  name?: string;
}

export function createFakeEngine(options: FakeEngineOptions = {}): Engine {
  return new FakeEngine(options);
}

/** What createLorax() gives, on a fake engine. */
export function createFakeLorax<NAME extends string = string>(
  options: FakeLoraxOptions<NAME> = {},
): LoraxProvider<Exclude<NAME, typeof BASE_MODEL>> {
  const known = ['answers', 'tokenMs', 'adapters', 'defaults', 'name'];
  const { answers, tokenMs, adapters, defaults, name } = checkObject(options, 'options', known);
  const engine = new FakeEngine({ answers, tokenMs } as FakeEngineOptions);
  for (const [adapter, source] of checkAdapters(adapters)) {
    engine.declareAdapter(adapter, source);
  }
  return buildProvider({
    engine,
    defaults: checkSampling(defaults, 'options.defaults'),
    name: checkString(name, 'options.name') ?? 'lorax',
  });
}
