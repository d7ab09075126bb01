import { lorax } from '@/lib/lorax';
import type { AnswerOptions, ChatMessage } from '@/lib/messages';
import {
  convertToModelMessages,
  createUIMessageStreamResponse,
  streamText,
  toUIMessageStream,
  type ToolSet,
} from 'ai';

type Question = AnswerOptions & { messages: ChatMessage[] };

export async function POST(request: Request): Promise<Response> {
  const { messages, adapter, endless }: Question = await request.json();
  const { stream } = streamText({
    model: lorax(adapter), // a name, so it may come from the page: an unknown one is an error
    messages: await convertToModelMessages(messages),
    abortSignal: request.signal, // the page's Stop button, or the page is gone
    providerOptions: { lorax: { ignoreEos: endless } },
  });
  let firstTextAt = 0;
  const pageStream = toUIMessageStream<ToolSet, ChatMessage>({
    stream,
    messageMetadata: ({ part }) => {
      if (part.type === 'start') return { adapter };
      if (part.type === 'text-delta') firstTextAt ||= performance.now();
      if (part.type !== 'finish') return undefined;
      const seconds = (performance.now() - firstTextAt) / 1000;
      return { adapter, tokensPerSecond: (part.totalUsage.outputTokens ?? 0) / seconds };
    },
    onError: (error) => (error instanceof Error ? error.message : String(error)),
  });
  return createUIMessageStreamResponse({ stream: pageStream });
}
