/**
 * Activated LoRA (Greenewald et al. 2025, "Activated LoRA: Fine-tuned LLMs for Intrinsics"): from where on
 * in its prompt an adapter applies.
 *
 * As PEFT has it: from the last occurrence of the adapter's invocation tokens on; without one, nowhere.
 * What comes before is the base's, and so is its KV. Called by engine-port.ts and embedding-calls.ts.
 */
import type { NativeAdapterUse } from './addon.js';

export interface LeasedUse extends NativeAdapterUse {
  /** undefined: it applies everywhere. */
  invocationTokens: readonly number[] | undefined;
}

export function activeUses(uses: readonly LeasedUse[], prompt: Int32Array): NativeAdapterUse[] {
  const active: NativeAdapterUse[] = [];
  for (const { handle, weight, invocationTokens } of uses) {
    if (invocationTokens === undefined) {
      active.push({ handle, weight });
      continue;
    }
    const firstPosition = lastIndexOf(prompt, invocationTokens);
    if (firstPosition >= 0) active.push({ handle, weight, firstPosition });
  }
  return active;
}

/** Where `tokens`, which are some, begin for the last time; -1: nowhere. */
function lastIndexOf(prompt: Int32Array, tokens: readonly number[]): number {
  for (let at = prompt.length - tokens.length; at >= 0; at--) {
    if (tokens.every((token, i) => prompt[at + i] === token)) return at;
  }
  return -1;
}
