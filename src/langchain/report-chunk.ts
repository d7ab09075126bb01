/** A chunk for the callbacks of a run, as every streaming model tells them of it. */
import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import type { ChatGenerationChunk, GenerationChunk } from '@langchain/core/outputs';

export async function reportChunk(
  run: CallbackManagerForLLMRun | undefined,
  chunk: ChatGenerationChunk | GenerationChunk,
): Promise<void> {
  const [index, runId, parentRunId, tags] = [undefined, undefined, undefined, undefined];
  await run?.handleLLMNewToken(chunk.text, index, runId, parentRunId, tags, { chunk });
}
