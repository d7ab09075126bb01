/**
 * A request as the client wrote it -> what native code is given, and how its tokens will be read.
 *
 * Nothing here changes the engine: whatever fails, fails this request alone. Called by
 * engine-port.ts once per request.
 */
import type { NativeConstraint } from './addon.js';
import { encodePrompt } from './encode-prompt.js';
import { argumentsGrammar } from './grammar/arguments-grammar.js';
import type { LoadedEngine } from './load-engine.js';
import { planAnswer } from './output/answer-plan.js';
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
  { native, tokenizer, defaults, info }: LoadedEngine,
): Promise<PreparedRequest> {
  const { sampling: preset, eosTokenIds } = defaults;
  const sampling = resolveSampling(command.sampling, preset, eosTokenIds, info.vocabSize);
  const { tokens, thinking } = await encodePrompt(command, tokenizer, info);
  const { tools } = command;
  const { callFormat, reasoningTags } = tokenizer.templateFor({ tools: tools?.definitions });
  const { grammar, reading } = await planAnswer(
    { callFormat, reasoningTags, special: tokenizer.special },
    { ...(tools === undefined ? {} : { tools }), structured: null, thinking },
    argumentsGrammar,
  );
  const output = new TextOutput(tokenizer.table, sampling.stop, sampling.stopTokenIds, reading);
  if (grammar === null) return { tokens, sampling, output };
  const { text, ...triggers } = grammar;
  const constraint = { grammar: await native.compileGrammar(text), ...triggers };
  return { tokens, sampling, output, constraint };
}
