/** Logprobs of tokens in the two forms that OpenAI's APIs have for them. */
import type { TokenLogprob } from '../../types.js';
import type { TokenTexts } from '../token-texts.js';

interface TokenJson {
  token: string;
  logprob: number;
  bytes: number[];
}

export interface ChatLogprob extends TokenJson {
  top_logprobs: TokenJson[];
}

export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: number[];
  top_logprobs: Record<string, number>[];
  /** Where each begins in the text, in characters. */
  text_offset: number[];
}

function idsOf(logprobs: readonly TokenLogprob[]): number[] {
  return logprobs.flatMap(({ tokenId, top }) => [tokenId, ...top.map((each) => each.tokenId)]);
}

/** JSON has no infinities: what cannot be drawn is very unlikely. */
const finite = (logprob: number): number => Math.max(logprob, -9999);

export async function chatLogprobs(
  logprobs: readonly TokenLogprob[],
  tokens: TokenTexts,
): Promise<ChatLogprob[]> {
  await tokens.learn(idsOf(logprobs));
  const shown = ({ tokenId, logprob }: { tokenId: number; logprob: number }): TokenJson => {
    const { text: token, bytes } = tokens.of(tokenId);
    return { token, logprob: finite(logprob), bytes };
  };
  return logprobs.map((each) => ({ ...shown(each), top_logprobs: each.top.map(shown) }));
}

/** `offset`: of the first of them, in the whole text. */
export async function completionLogprobs(
  logprobs: readonly TokenLogprob[],
  tokens: TokenTexts,
  offset: number,
): Promise<CompletionLogprobs> {
  await tokens.learn(idsOf(logprobs));
  const json: CompletionLogprobs = {
    ...{ tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] },
  };
  let at = offset;
  for (const { tokenId, logprob, top } of logprobs) {
    const { text } = tokens.of(tokenId);
    json.tokens.push(text);
    json.token_logprobs.push(finite(logprob));
    // The one that was drawn is always among them.
    const all = [{ tokenId, logprob }, ...top];
    json.top_logprobs.push(
      Object.fromEntries(all.map((each) => [tokens.of(each.tokenId).text, finite(each.logprob)])),
    );
    json.text_offset.push(at);
    at += text.length;
  }
  return json;
}
