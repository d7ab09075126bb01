import type { ChatMessage } from '@/lib/messages';
import { type UseChatHelpers, useChat } from '@ai-sdk/react';
import type { ChatTransport } from 'ai';
import { useState } from 'react';

/** One of the two conversations, and the adapter that will answer next in it. */
export interface Side {
  name: string;
  adapter: string;
  setAdapter(adapter: string): void;
  chat: UseChatHelpers<ChatMessage>;
  answering: boolean;
}

export function useSide(
  name: string,
  firstAdapter: string,
  transport: ChatTransport<ChatMessage>,
): Side {
  const [adapter, setAdapter] = useState(firstAdapter);
  // A fast engine sends more pieces than a screen has frames.
  const chat = useChat<ChatMessage>({ id: name, transport, experimental_throttle: 50 });
  const answering = chat.status === 'submitted' || chat.status === 'streaming';
  return { name, adapter, setAdapter, chat, answering };
}
