/**
 * vLLM's POST /v1/load_lora_adapter and /v1/unload_lora_adapter: adapters that clients load and unload
 * while the server runs. Off unless the app turned them on, and then only from where it said.
 *
 * In the view of the request: what a tenant loads is the tenant's. Unloading answers when the last
 * request on the adapter has ended and its memory is free.
 */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { resolveAdapterSource, type ResolvedSource } from '../../adapter-source.js';
import { isAdapterName } from '../../adapter-name.js';
import { checkBoolean, type Fields } from '../../check-shape.js';
import { LoraxError } from '../../errors.js';
import type { RegisterRoutes, ServerContext, ServerState } from '../environment.js';
import { baseModelName } from '../model-name.js';
import { readBody } from '../read-body.js';
import { vllmError } from './vllm-error.js';

export const registerLoraAdapters: RegisterRoutes = (app, state) => {
  if (state.adapterUpdates === undefined) return;
  app.post('/v1/load_lora_adapter', async (c) =>
    load(c, state, await readBody(c, state.maxBodyBytes)),
  );
  app.post('/v1/unload_lora_adapter', async (c) =>
    unload(c, await readBody(c, state.maxBodyBytes)),
  );
};

async function load(c: ServerContext, state: ServerState, fields: Fields): Promise<Response> {
  const { lora_name: name, lora_path: place } = fields;
  if (typeof name !== 'string' || typeof place !== 'string' || name === '' || place === '') {
    const message = "Both 'lora_name' and 'lora_path' must be provided.";
    return vllmError(c, 'InvalidUserInput', message);
  }
  const inPlace = checkBoolean(fields.load_inplace, 'load_inplace') ?? false;
  if (!isAdapterName(name) || name === baseModelName(state, await state.info())) {
    return vllmError(c, 'InvalidUserInput', `'${shown(name)}' cannot be a lora adapter's name.`);
  }
  const { adapters } = c.get('engine');
  const known = (await adapters.list()).some((each) => each.name === name);
  if (known && !inPlace) {
    const message =
      `The lora adapter '${name}' has already been loaded. If you want to load the adapter in ` +
      "place, set 'load_inplace' to True.";
    return vllmError(c, 'InvalidUserInput', message);
  }
  try {
    const source = sourceOf(place);
    if (!state.adapterUpdates?.(source)) {
      return vllmError(c, 'BadRequestError', `This server loads no adapters from ${shown(place)}.`);
    }
    if (source.local && !existsSync(join(source.shown, 'adapter_config.json'))) {
      throw notFound(name, place);
    }
    await adapters.add(name, source.local ? source.shown : addressOf(place));
  } catch (error) {
    if (!LoraxError.isInstance(error)) throw error;
    const isMissing = error.code === 'ADAPTER_NOT_FOUND' || error.data.status === 404;
    if (isMissing) return vllmError(c, 'NotFoundError', error.message);
    if (!CLIENT_FAULTS.has(error.code)) throw error;
    return vllmError(c, 'BadRequestError', error.message);
  }
  return c.text(`Success: LoRA adapter '${name}' added successfully.`);
}

const CLIENT_FAULTS: ReadonlySet<string> = new Set([
  ...['INVALID_OPTIONS', 'ADAPTER_INVALID', 'ADAPTER_UNSUPPORTED', 'ADAPTER_FETCH_FAILED'],
  ...['HOST_MEMORY_EXHAUSTED', 'POOL_EXHAUSTED'],
]);

async function unload(c: ServerContext, { lora_name: name }: Fields): Promise<Response> {
  if (typeof name !== 'string' || name === '') {
    const message = "'lora_name' needs to be provided to unload a LoRA adapter.";
    return vllmError(c, 'InvalidUserInput', message);
  }
  try {
    await c.get('engine').adapters.remove(name);
  } catch (error) {
    if (!LoraxError.isInstance(error) || error.code !== 'ADAPTER_NOT_FOUND') throw error;
    const message = `The lora adapter '${shown(name)}' cannot be found.`;
    return vllmError(c, 'NotFoundError', message);
  }
  return c.text(`Success: LoRA adapter '${name}' removed successfully.`);
}

/** A directory, an address, or as vLLM has it a repository of the hub where no such directory is. */
function sourceOf(place: string): ResolvedSource {
  return resolveAdapterSource(addressOf(place), 'lora_path');
}

function addressOf(place: string): string {
  if (place.startsWith('~/')) return join(homedir(), place.slice(2));
  return /^[\w.-]+\/[\w.-]+$/.test(place) && !existsSync(place) ? `hf://${place}` : place;
}

function notFound(name: string, place: string): LoraxError {
  const message = `Loading lora ${shown(name)} failed: No adapter found for ${shown(place)}`;
  return new LoraxError('ADAPTER_NOT_FOUND', message);
}

function shown(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}
