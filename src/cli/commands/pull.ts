/** `lorax-js pull`: fetches a model or an adapter ahead of time; one that was cut off goes on. */
import { invalidOptions } from '../../check-shape.js';
import { LoraxError } from '../../errors.js';
import type { Command } from '../command-line.js';
import { HUB_OPTIONS, hubOptions, interruptSignal, Places } from '../places.js';

const KINDS = ['model', 'adapter'] as const;
type Kind = (typeof KINDS)[number];

export const pull: Command = {
  name: 'pull',
  positionals: '<org/name[@revision]|hf://...|https://...|s3://...>',
  minPositionals: 1,
  summary: 'fetch a model or an adapter into the cache; goes on where it was cut off',
  options: {
    kind: { type: 'string', value: '<model|adapter>', help: 'default: whichever it is' },
    ...HUB_OPTIONS,
  },
  async run({ positionals, values }, terminal) {
    const source = positionals[0] as string;
    const given = KINDS.find((kind) => kind === values.kind);
    if (values.kind !== undefined && given === undefined) {
      throw invalidOptions('--kind', '--kind must be model or adapter.', values.kind);
    }
    const places = new Places(hubOptions(values), terminal, interruptSignal());
    const isAddress = /^(https?|s3):/.test(source);
    const [kind, directory] = await fetchAs(
      given === undefined ? (isAddress ? ['adapter'] : ['adapter', 'model']) : [given],
      (each) => (each === 'model' ? places.model(source) : places.adapter(source)),
    );
    terminal.result({ source, kind, directory }, () => [directory]);
    return 0;
  },
};

/** An adapter says so by its files; what has none is tried as a model. */
async function fetchAs(
  kinds: readonly Kind[],
  fetch: (kind: Kind) => Promise<string>,
): Promise<[Kind, string]> {
  const [kind, ...others] = kinds as [Kind, ...Kind[]];
  try {
    return [kind, await fetch(kind)];
  } catch (error) {
    const isOther = LoraxError.isInstance(error) && error.code === 'ADAPTER_INVALID';
    if (others.length === 0 || !isOther) throw error;
    return fetchAs(others, fetch);
  }
}
