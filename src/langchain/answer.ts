/**
 * A whole answer: the engine's events as the message that invoke() gives.
 *
 * With output version v0 `content` is the text, after blocks of reasoning where there is some; with
 * v1 it is all of the answer's blocks, calls included, in their order.
 */
import { AIMessage } from '@langchain/core/messages';
import type { ContentBlock } from '@langchain/core/messages';
import type { ChatResult } from '@langchain/core/outputs';
import { LoraxError } from '../errors.js';
import type { FinishEvent, StartEvent, TokenLogprob } from '../types.js';
import type { AnswerEvent } from './engine-call.js';
import { responseMetadata, tokenUsage, usageMetadata } from './metadata.js';

export type OutputVersion = 'v0' | 'v1';

type Text = { type: 'text'; text: string };
type Reasoning = { type: 'reasoning'; reasoning: string };
/** Not `ended` while it is being written, and for ever where the answer is cut off inside it. */
type Call = { type: 'call'; id: string; name: string; json: string; ended: boolean };

export class Answer {
  readonly #start: StartEvent;
  readonly #blocks: (Text | Reasoning | Call)[] = [];
  #logprobs: TokenLogprob[] | undefined;
  #finish: FinishEvent | undefined;

  constructor(start: StartEvent) {
    this.#start = start;
  }

  add(event: AnswerEvent): void {
    const last = this.#blocks.at(-1);
    switch (event.type) {
      case 'delta':
        if (event.logprobs !== undefined) (this.#logprobs ??= []).push(...event.logprobs);
        if (event.text === '') break;
        if (last?.type === 'text') last.text += event.text;
        else this.#blocks.push({ type: 'text', text: event.text });
        break;
      case 'reasoning-delta':
        if (last?.type === 'reasoning') last.reasoning += event.text;
        else this.#blocks.push({ type: 'reasoning', reasoning: event.text });
        break;
      case 'tool-call-start':
        this.#blocks.push({
          ...{ type: 'call', id: event.callId, name: event.name, json: '', ended: false },
        });
        break;
      case 'tool-call-delta':
        if (last?.type === 'call') last.json += event.delta;
        break;
      case 'tool-call-end':
        if (last?.type === 'call') last.ended = true;
        break;
      case 'finish':
        this.#finish = event;
    }
  }

  result(version: OutputVersion): ChatResult {
    const finish = this.#finish;
    if (finish === undefined) throw new LoraxError('ENGINE_LOST', 'The answer has no end.');
    const message = this.#message(version, finish);
    return {
      generations: [{ text: message.text, message }],
      llmOutput: { tokenUsage: tokenUsage(finish.usage) },
    };
  }

  #message(version: OutputVersion, finish: FinishEvent): AIMessage {
    const calls = this.#blocks.filter((block) => block.type === 'call');
    return new AIMessage({
      id: this.#start.id,
      content: version === 'v1' ? this.#blocks.map(standardBlock) : plainContent(this.#blocks),
      tool_calls: calls.filter(({ ended }) => ended).map(toolCall),
      invalid_tool_calls: calls.filter(({ ended }) => !ended).map(unfinishedCall),
      usage_metadata: usageMetadata(finish.usage),
      response_metadata: {
        ...responseMetadata(this.#start, finish),
        ...(this.#logprobs === undefined ? {} : { logprobs: this.#logprobs }),
        ...(version === 'v1' ? { output_version: version } : {}),
      },
    });
  }
}

/** The text alone; where there is reasoning, blocks, as only those can tell the two apart. */
function plainContent(blocks: readonly (Text | Reasoning | Call)[]): string | (Text | Reasoning)[] {
  const said = blocks.filter((block) => block.type !== 'call');
  if (said.some(({ type }) => type === 'reasoning')) return said;
  return said.map((block) => (block.type === 'text' ? block.text : '')).join('');
}

function standardBlock(block: Text | Reasoning | Call): ContentBlock.Standard {
  if (block.type !== 'call') return block;
  return block.ended ? toolCall(block) : unfinishedCall(block);
}

/** What has an end has arguments that are JSON. */
export function toolCall({ id, name, json }: Pick<Call, 'id' | 'name' | 'json'>) {
  const args = JSON.parse(json) as Record<string, unknown>;
  return { type: 'tool_call' as const, id, name, args };
}

export function unfinishedCall({ id, name, json }: Pick<Call, 'id' | 'name' | 'json'>) {
  const error = 'The answer was cut off inside this call.';
  return { type: 'invalid_tool_call' as const, id, name, args: json, error };
}
