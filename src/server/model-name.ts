/**
 * What `model` means in a request: the base model's name, an adapter's, or `base:adapter`.
 */
import { BASE_MODEL } from '../adapter-name.js';
import { checkString } from '../check-shape.js';
import type { EngineInfo } from '../types.js';
import type { ServerState } from './environment.js';
import type { ResolvedServerOptions } from './server-options.js';

type Naming = Pick<ResolvedServerOptions, 'modelName'>;

/** The last part of a path or of org/name@revision, where the options name none. */
export function baseModelName({ modelName }: Naming, { model }: Pick<EngineInfo, 'model'>): string {
  if (modelName !== undefined) return modelName;
  const last = model.split(/[\\/]/).filter(Boolean).at(-1) ?? BASE_MODEL;
  return last.split('@', 1)[0] || BASE_MODEL;
}

/** What a request's `model` asks for, checked. */
export async function adapterAsked(
  state: Pick<ServerState, 'modelName' | 'info'>,
  model: unknown,
): Promise<{ adapter?: string; model: string }> {
  const asked = checkString(model, 'model');
  const base = state.modelName ?? baseModelName(state, await state.info());
  const adapter = adapterOf(asked, base);
  return adapter === undefined ? { model: asked ?? base } : { adapter, model: asked ?? base };
}

/** undefined: the base model. Whether there is such an adapter is the engine's to say. */
export function adapterOf(model: string | undefined, base: string): string | undefined {
  if (model === undefined || model === base || model === BASE_MODEL) return undefined;
  const adapter = model.startsWith(`${base}:`) ? model.slice(base.length + 1) : model;
  return adapter === '' || adapter === BASE_MODEL ? undefined : adapter;
}
