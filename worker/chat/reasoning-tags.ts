/**
 * The tags between which a model thinks, and where a rendered prompt leaves it: before them, inside,
 * or behind.
 *
 * A template that knows the tags decides with `enable_thinking` (or `thinking`) what it writes; where
 * it does not listen, the tags themselves keep a model from thinking. Called by chat-template.ts.
 */

export interface ReasoningTags {
  open: string;
  close: string;
  /** The template writes them, or cuts reasoning out of earlier turns: its model does reason. */
  inTemplate: boolean;
}

/**
 * What the answer begins with: 'open' = reasoning, since the prompt ends inside; 'maybe' = reasoning
 * if the model opens it; 'none' = no reasoning.
 */
export type Thinking = 'open' | 'maybe' | 'none';

const KNOWN: readonly Pick<ReasoningTags, 'open' | 'close'>[] = [
  { open: '<think>', close: '</think>' },
  { open: '[THINK]', close: '[/THINK]' },
  { open: '<thinking>', close: '</thinking>' },
  { open: '<reasoning>', close: '</reasoning>' },
];

/** Tags that are in the template; else a pair that the tokenizer has as tokens. */
export function reasoningTagsOf(
  template: string,
  isToken: (content: string) => boolean,
): ReasoningTags | null {
  const written = KNOWN.find(
    ({ open, close }) => template.includes(open) || template.includes(close),
  );
  if (written !== undefined) return { ...written, inTemplate: true };
  const spelled = KNOWN.find(({ open, close }) => isToken(open) && isToken(close));
  return spelled === undefined ? null : { ...spelled, inTemplate: false };
}

type Tags = Pick<ReasoningTags, 'open' | 'close'>;

export function thinkingAfter(prompt: string, { open, close }: Tags): Thinking {
  const text = prompt.trimEnd();
  if (text.endsWith(open)) return 'open';
  return text.endsWith(close) ? 'none' : 'maybe';
}

/** What to add to a prompt so that the model does not think. */
export function closedThinking(prompt: string, { open, close }: Tags): string {
  const empty = `\n\n${close}\n\n`;
  switch (thinkingAfter(prompt, { open, close })) {
    case 'none':
      return '';
    case 'open':
      return prompt.endsWith('\n') ? empty.slice(1) : empty;
    case 'maybe':
      return open + empty;
  }
}
