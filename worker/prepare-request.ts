/**
 * A request as the client wrote it -> what native code is given, and how its tokens will be read.
 *
 * Nothing here changes the engine: whatever fails, fails this request alone. Called by
 * engine-port.ts once per request.
 */
import type { NativeConstraint } from './addon.js';
import { encodePrompt } from './encode-prompt.js';
import type { GrammarCache } from './grammar/grammar-cache.js';
import type { LoadedEngine } from './load-engine.js';
import { planAnswer, type PlannedGrammar } from './output/answer-plan.js';
import { TextOutput } from './output/text-output.js';
import type { GenerateCommand } from './protocol.js';
import { resolveSampling, type ResolvedSampling } from './sampling-defaults.js';

export interface PreparedRequest {
  tokens: Int32Array;
  sampling: ResolvedSampling;
  output: TextOutput;
  constraint?: NativeConstraint;
}

export async function prepareRequest(
  command: GenerateCommand,
  { tokenizer, defaults, info }: LoadedEngine,
  grammars: GrammarCache,
): Promise<PreparedRequest> {
  const { sampling: preset, eosTokenIds } = defaults;
  const sampling = resolveSampling(command.sampling, preset, eosTokenIds, info.vocabSize);
  const { tokens, thinking } = await encodePrompt(command, tokenizer, info);
  const { callFormat, reasoningTags } = tokenizer.templateFor(command.tools !== undefined);
  const style = { callFormat, reasoningTags, special: tokenizer.special };
  const { grammar, reading } = planAnswer(style, { ...command, thinking });
  const output = new TextOutput(tokenizer.table, sampling.stop, sampling.stopTokenIds, reading);
  if (grammar === null) return { tokens, sampling, output };
  const constraint = await compile(grammar, command, grammars);
  return { tokens, sampling, output, constraint };
}

async function compile(
  { key, text, triggers }: PlannedGrammar,
  { constraint }: GenerateCommand,
  grammars: GrammarCache,
): Promise<NativeConstraint> {
  // By itself first: a fault's line and column are then those that its author sees.
  if (constraint?.type === 'grammar') {
    await grammars.of(JSON.stringify(constraint), async () => constraint.grammar);
  }
  const grammar = await grammars.of(key, text);
  return triggers === undefined ? { grammar } : { grammar, triggers };
}
