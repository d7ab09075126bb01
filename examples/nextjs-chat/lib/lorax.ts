// One provider for the whole app. Making it costs nothing: the engine starts at the first question,
// and an edit of this file in development finds the engine that is there.
import { createLorax } from 'lorax-js';

const model = process.env.LORAX_MODEL ?? 'node_modules/lorax-js/models/demo';

export const ADAPTERS = ['brief', 'caps', 'emoji', 'french', 'german', 'json', 'pirate'];

export const lorax = createLorax({
  model,
  adapters: Object.fromEntries(ADAPTERS.map((name) => [name, `${model}/adapters/${name}`])),
});
