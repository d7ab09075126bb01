/** `lorax-js inspect`: what an adapter is, and whether a base model can serve it. */
import { invalidOptions } from '../../check-shape.js';
import { LoraxError } from '../../errors.js';
import type { AdapterReport } from '../../../worker/offline.js';
import { readDecoderConfig, reportAdapter } from '../../../worker/offline.js';
import type { Command } from '../command-line.js';
import { formatBytes, table } from '../format.js';
import { HUB_OPTIONS, hubOptions, interruptSignal, isDirectory, Places } from '../places.js';
import type { Terminal } from '../terminal.js';

export const inspect: Command = {
  name: 'inspect',
  positionals: '<adapter>',
  minPositionals: 1,
  summary: 'ranks, targets, size, base match and what is unsupported of an adapter',
  options: {
    model: {
      type: 'string',
      value: '<dir|org/name>',
      help: 'the base to check it with (default: the one it was trained on, where it is here)',
    },
    ...HUB_OPTIONS,
  },
  async run({ positionals, values }, terminal) {
    const hub = hubOptions(values);
    const signal = interruptSignal();
    const directory = await new Places(hub, terminal, signal).adapter(positionals[0] as string);
    let report = await reportAdapter(directory, undefined);
    const base = await baseDirectory(values.model, report.trainedOn, async (model) => {
      // The default is looked for here alone: nobody asked for gigabytes.
      const offline = values.model === undefined ? { ...hub, offline: true } : hub;
      return new Places(offline, terminal, signal).model(model);
    });
    if (base !== undefined) report = await reportAdapter(directory, await readDecoderConfig(base));
    terminal.result({ ...report, baseModel: base ?? null }, () => describe(report, base, terminal));
    return report.problem === undefined ? 0 : 1;
  },
};

async function baseDirectory(
  given: unknown,
  trainedOn: string | undefined,
  find: (model: string) => Promise<string>,
): Promise<string | undefined> {
  if (typeof given === 'string') {
    if (given === '') throw invalidOptions('--model', '--model needs a directory or org/name.');
    return find(given);
  }
  if (trainedOn === undefined) return undefined;
  if (await isDirectory(trainedOn)) return trainedOn;
  try {
    return await find(trainedOn);
  } catch (error) {
    if (LoraxError.isInstance(error)) return undefined;
    throw error;
  }
}

function describe(report: AdapterReport, base: string | undefined, terminal: Terminal): string[] {
  const { ranks, targets, features, problem, trainedOn, engineBytes } = report;
  const verdicts = {
    fits: terminal.style('green', `fits ${base}`),
    'does-not-fit': terminal.style('red', `cannot be served on ${base}`),
    'not-given': `not checked: give --model${trainedOn === undefined ? '' : ` (${trainedOn} is not here)`}`,
  };
  const rows = [
    ['directory', report.directory],
    ['trained on', trainedOn ?? 'not said'],
    ['ranks', ranks.length === 0 ? 'none' : ranks.join(', ')],
    ['alpha', String(report.alpha ?? 'not said')],
    ['targets', targets.length === 0 ? 'none' : targets.join(', ')],
    ['beside', features.length === 0 ? 'nothing' : features.join(', ')],
    ['file', formatBytes(report.fileBytes)],
    ...(engineBytes === undefined ? [] : [['in bf16', formatBytes(engineBytes)]]),
    ...(report.hash === undefined ? [] : [['content', report.hash]]),
    ['base', verdicts[report.base]],
  ];
  const lines = table(rows as string[][]);
  return problem === undefined ? lines : [...lines, `${problem.code}: ${problem.message}`];
}
