/**
 * An answer as it comes: the engine's events as the chunks that stream() gives.
 *
 * Chunks that are put together are the message of answer.ts. Blocks carry their index, by which
 * LangChain joins their pieces; a call is a block when it is complete, and before that pieces of
 * JSON in `tool_call_chunks`.
 */
import { AIMessageChunk } from '@langchain/core/messages';
import type { ContentBlock } from '@langchain/core/messages';
import type { AIMessageChunkFields } from '@langchain/core/messages';
import { ChatGenerationChunk } from '@langchain/core/outputs';
import type { StartEvent, ToolCallEvent } from '../types.js';
import { toolCall } from './answer.js';
import type { OutputVersion } from './answer.js';
import type { AnswerEvent } from './engine-call.js';
import { responseMetadata, usageMetadata } from './metadata.js';

export class AnswerChunks {
  readonly #start: StartEvent;
  readonly #version: OutputVersion;
  /** Of the newest block, and what it is. */
  #index = -1;
  #kind: 'text' | 'reasoning' | 'call' | undefined;
  /** v1, or there has been reasoning: then text comes in blocks as well. */
  #inBlocks: boolean;
  #numCalls = 0;

  constructor(start: StartEvent, version: OutputVersion) {
    this.#start = start;
    this.#version = version;
    this.#inBlocks = version === 'v1';
  }

  /** undefined: nothing to show yet. */
  next(event: AnswerEvent): ChatGenerationChunk | undefined {
    switch (event.type) {
      case 'delta': {
        const { text, logprobs } = event;
        if (text === '' && logprobs === undefined) return undefined;
        const metadata = logprobs === undefined ? {} : { logprobs };
        return this.#chunk({ content: this.#text(text), response_metadata: metadata }, text);
      }
      case 'reasoning-delta': {
        this.#inBlocks = true;
        const index = this.#block('reasoning');
        return this.#chunk({ content: [{ type: 'reasoning', reasoning: event.text, index }] });
      }
      case 'finish':
        return this.#chunk({
          usage_metadata: usageMetadata(event.usage),
          response_metadata: responseMetadata(this.#start, event),
        });
      default:
        return this.#call(event);
    }
  }

  #text(text: string): string | ContentBlock[] {
    if (!this.#inBlocks) return text;
    return text === '' ? [] : [{ type: 'text', text, index: this.#block('text') }];
  }

  #call(event: ToolCallEvent): ChatGenerationChunk | undefined {
    if (event.type === 'tool-call-start') {
      const { callId: id, name } = event;
      this.#numCalls += 1;
      return this.#chunk({ tool_call_chunks: [this.#piece({ id, name, args: '' })] });
    }
    if (event.type === 'tool-call-delta') {
      return this.#chunk({ tool_call_chunks: [this.#piece({ args: event.delta })] });
    }
    const index = this.#block('call');
    if (this.#version === 'v0') return undefined;
    const { callId: id, name, input: json } = event;
    return this.#chunk({ content: [{ ...toolCall({ id, name, json }), index }] });
  }

  /** The index of the block that is under way; a run of text or reasoning is one, a call is one. */
  #block(kind: 'text' | 'reasoning' | 'call'): number {
    if (kind === 'call' || kind !== this.#kind) this.#index += 1;
    this.#kind = kind;
    return this.#index;
  }

  #piece(fields: { id?: string; name?: string; args: string }) {
    return { type: 'tool_call_chunk' as const, index: this.#numCalls - 1, ...fields };
  }

  #chunk(fields: Partial<AIMessageChunkFields>, text = ''): ChatGenerationChunk {
    const { response_metadata: metadata } = fields;
    const version = this.#version === 'v1' ? { output_version: 'v1' as const } : {};
    const message = new AIMessageChunk({
      content: this.#version === 'v1' ? [] : '',
      ...fields,
      id: this.#start.id,
      response_metadata: { ...metadata, ...version },
    });
    return new ChatGenerationChunk({ text, message });
  }
}
