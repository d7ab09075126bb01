// What server and page tell each other beside the text.
import type { UIMessage } from 'ai';

/** Which adapter wrote an answer, and once it is complete, how fast. */
export type ChatMessage = UIMessage<{ adapter?: string; tokensPerSecond?: number }>;

/** Sent along with every question. */
export interface AnswerOptions {
  adapter: string;
  /** Talk on until somebody stops it. */
  endless: boolean;
}

export interface EngineStatus {
  device: string;
  pages: { total: number; kv: number; adapter: number };
  requests: { running: number; waiting: number };
  finished: number;
  adapters: { name: string; rank: number; resident: boolean; activeRequests: number }[];
}
