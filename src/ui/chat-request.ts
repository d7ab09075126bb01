/** One answer of the server's own /v1/chat/completions, as it comes, and how fast it came. */
import { readEvents, refusalOf } from './event-stream.js';

export interface ChatMessage {
  role: 'user' | 'assistant';
  content: string;
}

export interface ChatRequest {
  model: string;
  messages: readonly ChatMessage[];
  /** Unset: the model's own. */
  temperature?: number;
  maxTokens?: number;
}

export interface ChatProgress {
  text: string;
  /** Pieces until the server has said how many tokens. */
  tokens: number;
  firstTokenMs: number | undefined;
  /** From the first token to the newest. */
  tokensPerSecond: number | undefined;
  finishReason: string | undefined;
}

interface Chunk {
  error?: { message: string };
  usage?: { completion_tokens: number } | null;
  choices?: {
    delta?: { content?: string; reasoning_content?: string };
    finish_reason?: string | null;
  }[];
}

/** A refusal that another key may change. */
export class KeyNeeded extends Error {}

/** Throws in the server's words. */
export async function* askChat(
  { model, messages, temperature, maxTokens }: ChatRequest,
  headers: Record<string, string>,
  signal: AbortSignal,
): AsyncGenerator<ChatProgress> {
  const begin = performance.now();
  const response = await fetch('../v1/chat/completions', {
    ...{ method: 'POST', cache: 'no-store', signal },
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({
      ...{ model, messages, stream: true, stream_options: { include_usage: true } },
      ...(temperature === undefined ? {} : { temperature }),
      ...(maxTokens === undefined ? {} : { max_tokens: maxTokens }),
    }),
  });
  if (!response.ok || response.body === null) {
    const message = await refusalOf(response);
    throw [401, 403].includes(response.status) ? new KeyNeeded(message) : new Error(message);
  }
  const progress: ChatProgress = {
    ...{ text: '', tokens: 0 },
    ...{ firstTokenMs: undefined, tokensPerSecond: undefined, finishReason: undefined },
  };
  let [pieces, lastAt] = [0, begin];
  for await (const data of readEvents(response.body)) {
    if (data === '[DONE]') break;
    const { error, usage, choices } = JSON.parse(data) as Chunk;
    if (error !== undefined) throw new Error(error.message);
    const choice = choices?.[0];
    const piece = choice?.delta?.content ?? choice?.delta?.reasoning_content ?? '';
    if (piece !== '') {
      lastAt = performance.now();
      progress.firstTokenMs ??= lastAt - begin;
      progress.text += piece;
      progress.tokens = ++pieces;
    }
    if (usage != null) progress.tokens = usage.completion_tokens;
    progress.finishReason = choice?.finish_reason ?? progress.finishReason;
    const seconds = (lastAt - begin - (progress.firstTokenMs ?? 0)) / 1000;
    if (progress.tokens > 1 && seconds > 0) {
      progress.tokensPerSecond = (progress.tokens - 1) / seconds;
    }
    yield progress;
  }
}
