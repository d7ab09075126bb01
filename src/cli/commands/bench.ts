/**
 * `lorax-js bench`: how fast a model and its adapters are here, by numbers of sequences at once.
 *
 * Prompts of random tokens, answers of a fixed length, adapters taking turns; a warm-up before each
 * number. What it prints is of this machine at this moment; bench/ has the project's own measurements.
 */
import { performance } from 'node:perf_hooks';
import { checkNumber, invalidOptions } from '../../check-shape.js';
import type { Engine, EngineInfo } from '../../types.js';
import type { Command, OptionValues } from '../command-line.js';
import { table } from '../format.js';
import { ENGINE_OPTIONS, openEngine } from '../local-engine.js';

interface Load {
  sequences: number;
  promptTokens: number;
  outputTokens: number;
  /** Of them, one after another; 'base' too. */
  adapters: readonly string[];
}

interface Measured {
  sequences: number;
  adapters: number;
  outputTokensPerSecond: number;
  promptTokensPerSecond: number;
  firstTokenMs: { p50: number; p99: number };
  betweenTokensMs: { p50: number; p99: number };
}

export const bench: Command = {
  name: 'bench',
  positionals: '<model>',
  minPositionals: 1,
  summary: 'tokens/s and latencies of a model and its adapters on this machine',
  options: {
    ...ENGINE_OPTIONS,
    sequences: { type: 'string', value: '<1,4,...>', help: 'at once (default 1,4,16)' },
    'prompt-tokens': { type: 'number', help: 'of each (default 128)' },
    'output-tokens': { type: 'number', help: 'of each (default 64)' },
    rounds: { type: 'number', help: 'of each number of sequences (default 3)' },
  },
  async run({ positionals, values }, terminal) {
    const count = { min: 1, max: 1e6, integer: true };
    const promptTokens = checkNumber(values['prompt-tokens'], '--prompt-tokens', count) ?? 128;
    const outputTokens = checkNumber(values['output-tokens'], '--output-tokens', count) ?? 64;
    const rounds = checkNumber(values.rounds, '--rounds', count) ?? 3;
    const numbers = readNumbers(values.sequences);
    const { engine, names } = openEngine(positionals[0] as string, values, terminal);
    await using _ = engine;
    const info = await engine.ready();
    terminal.clearProgress();
    for (const name of names) await engine.adapters.prefetch(name);
    const results: Measured[] = [];
    for (const adapters of names.length === 0 ? [['base']] : [['base'], names]) {
      for (const sequences of numbers) {
        const load = { sequences, promptTokens, outputTokens, adapters };
        await runOnce(engine, info, { ...load, outputTokens: 2 });
        results.push(await measure(engine, info, load, rounds));
      }
    }
    const { device, deviceDescription, precision } = info;
    const document = { model: info.model, device, deviceDescription, precision };
    terminal.result({ ...document, promptTokens, outputTokens, rounds, results }, () => [
      deviceDescription,
      ...table([
        ['SEQUENCES', 'ADAPTERS', 'TOKENS/S', 'PROMPT/S', 'FIRST p50', 'p99', 'NEXT p50', 'p99'],
        ...results.map((each) => [
          ...[String(each.sequences), each.adapters === 0 ? 'base' : String(each.adapters)],
          ...[each.outputTokensPerSecond, each.promptTokensPerSecond].map((n) => n.toFixed(0)),
          ...[each.firstTokenMs, each.betweenTokensMs].flatMap(({ p50, p99 }) => [
            ...[`${p50.toFixed(1)} ms`, `${p99.toFixed(1)} ms`],
          ]),
        ]),
      ]),
    ]);
    return 0;
  },
};

function readNumbers(given: OptionValues[string]): number[] {
  const numbers = (typeof given === 'string' ? given : '1,4,16').split(',').map(Number);
  if (numbers.every((each) => Number.isInteger(each) && each > 0 && each <= 4096)) return numbers;
  throw invalidOptions('--sequences', '--sequences must be counts, e.g. 1,4,16.', given);
}

interface Run {
  ms: number;
  outputTokens: number;
  first: number[];
  between: number[];
}

async function measure(
  engine: Engine,
  info: EngineInfo,
  load: Load,
  rounds: number,
): Promise<Measured> {
  const runs: Run[] = [];
  for (let i = 0; i < rounds; i++) runs.push(await runOnce(engine, info, load));
  const seconds = runs.reduce((sum, { ms }) => sum + ms, 0) / 1000;
  const output = runs.reduce((sum, each) => sum + each.outputTokens, 0);
  const { sequences, promptTokens, adapters } = load;
  const first = runs.flatMap((each) => each.first);
  // Of the time until the last first token: prompts are computed side by side.
  const prefillSeconds = runs.reduce((sum, each) => sum + Math.max(...each.first), 0) / 1000;
  return {
    sequences,
    adapters: adapters.filter((name) => name !== 'base').length,
    outputTokensPerSecond: output / seconds,
    promptTokensPerSecond: (rounds * sequences * promptTokens) / prefillSeconds,
    firstTokenMs: percentiles(first),
    betweenTokensMs: percentiles(runs.flatMap((each) => each.between)),
  };
}

async function runOnce(engine: Engine, { vocabSize }: EngineInfo, load: Load): Promise<Run> {
  const run: Run = { ms: 0, outputTokens: 0, first: [], between: [] };
  const begin = performance.now();
  const one = async (adapter: string) => {
    // Of its own each time: nothing is found in the prefix cache.
    const promptTokens = Array.from({ length: load.promptTokens }, () =>
      Math.floor(Math.random() * vocabSize),
    );
    const sampling = { maxOutputTokens: load.outputTokens, ignoreEos: true, temperature: 0 };
    let [tokens, lastAt] = [0, 0];
    const seen = { count: 0, ms: 0 };
    for await (const event of engine.generate({ promptTokens, adapter, sampling })) {
      if (event.type === 'finish') {
        // Tokens that came with the first one share what is left of the time.
        const unseen = tokens - 1 - seen.count;
        const { totalMs, timeToFirstTokenMs } = event.timing;
        const leftMs = Math.max(0, totalMs - (timeToFirstTokenMs ?? totalMs) - seen.ms);
        for (let i = 0; i < unseen; i++) run.between.push(leftMs / unseen);
      }
      if (event.type !== 'delta' || event.tokenIds.length === 0) continue;
      const now = performance.now();
      if (tokens === 0) run.first.push(now - begin);
      else {
        const { length } = event.tokenIds;
        for (let i = 0; i < length; i++) run.between.push((now - lastAt) / length);
        seen.count += length;
        seen.ms += now - lastAt;
      }
      tokens += event.tokenIds.length;
      lastAt = now;
    }
    run.outputTokens += tokens;
  };
  await Promise.all(
    Array.from({ length: load.sequences }, (_, i) =>
      one(load.adapters[i % load.adapters.length] as string),
    ),
  );
  run.ms = performance.now() - begin;
  return run;
}

function percentiles(values: readonly number[]): { p50: number; p99: number } {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return { p50: at(0.5), p99: at(0.99) };
}
