/**
 * How a model names its weights: by a registered name, by the engine's name of a directory, or as a
 * mix that the app has written.
 *
 * Names come from apps' clients: what cannot be a name is no model, before anything is asked.
 */
import { BASE_MODEL, isAdapterName } from '../adapter-name.js';
import { malformedAdapterName } from '../client-errors.js';
import type { AdapterMix } from '../types.js';
import { noSuchModel } from './convert-error.js';
import type { ModelType } from './convert-error.js';

export type ModelTarget = { name: string } | { directory: string } | { mix: AdapterMix };

/** What the engine calls the target. */
export function adapterOf(target: ModelTarget): string | AdapterMix {
  if ('mix' in target) return target.mix;
  return 'name' in target ? target.name : target.directory;
}

/** The AI SDK takes an empty id for a missing one. */
export function shownModelId(modelId: string): string {
  return modelId === '' ? '(empty name)' : modelId;
}

/** Throws NoSuchModelError. */
export function checkTarget(target: ModelTarget, modelId: string, modelType: ModelType): void {
  if (!('name' in target)) return;
  const { name } = target;
  if (name === BASE_MODEL || isAdapterName(name)) return;
  const cause = malformedAdapterName(name, 'A directory is opened with fromDirectory().');
  throw noSuchModel(modelId, cause, modelType);
}
