/**
 * The ready-made `lorax`: configured by the environment, read at the first call.
 *
 * LORAX_MODEL names the model, LORAX_ADAPTERS a folder of PEFT directories (each folder's name is
 * the adapter's). Without LORAX_MODEL it serves the package's demo model and says so once; in
 * production it refuses instead.
 */
import { LoadSettingError } from '@ai-sdk/provider';
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BASE_MODEL, isAdapterName } from './adapter-name.js';
import { directorySource } from './adapter-source.js';
import { buildProvider } from './ai-sdk/provider.js';
import type { LoraxProvider } from './ai-sdk/provider.js';
import { pickEngineOptions } from './engine-options.js';
import { noticeOnce } from './notice.js';
import { ScopedEngine } from './shared-engines.js';
import type { Connect } from './worker-connection.js';

const DEMO_MODEL = fileURLToPath(new URL('../models/demo', import.meta.url));

/** @internal `connect` is for tests. */
export function createDefaultProvider(connect?: Connect): LoraxProvider {
  const engine: ScopedEngine = new ScopedEngine(() => {
    const { model, adapters } = readEnvironment(process.env);
    for (const [name, directory] of adapters) {
      engine.declareAdapter(name, directorySource(directory));
    }
    return pickEngineOptions({ model });
  }, connect);
  return buildProvider({ engine, defaults: {}, name: 'lorax' });
}

export const lorax: LoraxProvider = createDefaultProvider();

interface Environment {
  model: string;
  adapters: [name: string, directory: string][];
}

function readEnvironment(env: NodeJS.ProcessEnv): Environment {
  const folder = env.LORAX_ADAPTERS;
  if (env.LORAX_MODEL) {
    const model = resolve(env.LORAX_MODEL);
    return { model, adapters: folder ? adaptersIn(folder) : [] };
  }
  if (env.NODE_ENV === 'production') {
    throw new LoadSettingError({
      message:
        'LORAX_MODEL is not set: give the path of a Hugging Face model directory, or use ' +
        'createLorax({ model }). (Outside of production the demo model would be served.)',
    });
  }
  noticeOnce(
    'LORAX_DEMO_MODEL',
    'LORAX_MODEL is not set: serving the small demo model that comes with lorax-js.',
  );
  return { model: DEMO_MODEL, adapters: adaptersIn(folder || join(DEMO_MODEL, 'adapters')) };
}

/** Every folder in `folder` that holds a PEFT adapter. */
function adaptersIn(folder: string): [string, string][] {
  const absolute = resolve(folder);
  let names: string[];
  try {
    names = readdirSync(absolute).sort();
  } catch (cause) {
    const error = new LoadSettingError({
      message: `LORAX_ADAPTERS: there is no folder ${absolute} that can be read.`,
    });
    throw Object.assign(error, { cause });
  }
  const found = names.filter((name) => existsSync(join(absolute, name, 'adapter_config.json')));
  const refused = found.filter((name) => !isAdapterName(name) || name === BASE_MODEL);
  if (refused.length > 0) {
    throw new LoadSettingError({
      message:
        `LORAX_ADAPTERS: ${refused.map((name) => JSON.stringify(name)).join(', ')} in ${absolute} ` +
        'cannot be the name of an adapter; rename the folder.',
    });
  }
  return found.map((name) => [name, join(absolute, name)]);
}
