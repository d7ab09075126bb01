/** Why an answer ended, in the words of OpenAI's clients and of vLLM's. */
import type { FinishEvent } from '../../types.js';

export interface FinishJson {
  finish_reason: 'stop' | 'length' | 'tool_calls';
  /** vLLM's: the stop string or token that was hit. */
  stop_reason: string | number | null;
}

export function finishOf({ reason, rawReason }: FinishEvent): FinishJson {
  return {
    finish_reason: reason === 'tool-calls' ? 'tool_calls' : reason,
    stop_reason: stopReason(rawReason),
  };
}

function stopReason(raw: string): string | number | null {
  const [, kind, what = ''] = /^stop-(string|token):(.*)$/s.exec(raw) ?? [];
  if (kind === undefined) return null;
  return kind === 'string' ? what : Number(what);
}
