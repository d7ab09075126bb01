/**
 * GET /v1/models and /v1/models/{id}: the base model and the adapters that the request's view names.
 */
import type { AdapterInfo, EngineInfo } from '../../types.js';
import type { RegisterRoutes, ServerContext, ServerState } from '../environment.js';
import { HttpError } from '../http-error.js';
import { baseModelName } from '../model-name.js';

interface Model {
  id: string;
  object: 'model';
  created: number;
  owned_by: string;
  /** Where it is: the model's directory or repository, an adapter's source without credentials. */
  root: string;
  /** Of an adapter: the base model's name. */
  parent: string | null;
  max_model_len: number;
}

export const registerModels: RegisterRoutes = (app, state) => {
  const created = Math.floor(Date.now() / 1000);
  app.get('/v1/models', async (c) =>
    c.json({ object: 'list', data: await listModels(c, state, created) }),
  );
  // A name may have slashes: org/name.
  app.get('/v1/models/:id{.+}', async (c) => {
    const id = c.req.param('id');
    const models = await listModels(c, state, created);
    const found = models.find((model) => model.id === id);
    if (found !== undefined) return c.json(found);
    const message = `There is no model ${JSON.stringify(id.slice(0, 200))}.`;
    throw new HttpError(404, message, { param: 'model', code: 'model_not_found' });
  });
};

async function listModels(c: ServerContext, state: ServerState, created: number): Promise<Model[]> {
  const engine = c.get('engine');
  const [info, own, shared] = await Promise.all([
    state.info(),
    engine.adapters.list(),
    engine === state.engine ? [] : state.engine.adapters.list(),
  ]);
  const base = baseModelName(state, info);
  const byName = new Map<string, AdapterInfo>();
  for (const adapter of [...shared, ...own]) byName.set(adapter.name, adapter);
  const model = (id: string, root: string, parent: string | null): Model => ({
    ...{ id, object: 'model', created, owned_by: 'lorax-js', root, parent },
    max_model_len: info.contextTokens,
  });
  const adapters = [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return [
    model(base, rootOf(info), null),
    ...adapters.map(({ name, source }) => model(name, source, base)),
  ];
}

const rootOf = ({ model }: EngineInfo): string => model;
