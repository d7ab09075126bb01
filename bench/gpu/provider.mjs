// The streams of engine_bench through the AI SDK provider, as users write them. For node-cost.mjs.
import { streamText } from 'ai';

// bench/ is a package of its own, so the one above has no name here.
import { createLorax } from '../../dist/index.mjs';

export class ProviderStreams {
  /** `adapters`: directories; stream i is on adapters[i % length], without any on the base. */
  constructor({ model, adapters, ...options }) {
    this.names = adapters.map((_, i) => `adapter-${i}`);
    this.lorax = createLorax({
      model,
      ...options,
      adapters: Object.fromEntries(this.names.map((name, i) => [name, adapters[i]])),
    });
  }

  /** Seconds from the first call to the last token, and the prompts' lengths in tokens. */
  async run(streams, tokens) {
    const begin = performance.now();
    const one = async (i) => {
      const result = streamText({
        model: this.lorax(this.names.length > 0 ? this.names[i % this.names.length] : 'base'),
        prompt: Array.from({ length: 40 }, (_, t) => `${(i * 37 + t) % 97}`).join(' '),
        maxOutputTokens: tokens,
        temperature: 0,
        providerOptions: { lorax: { ignoreEos: true } },
        onError: ({ error }) => {
          throw error;
        },
      });
      for await (const _ of result.textStream);
      const { inputTokens, outputTokens } = await result.usage;
      if (outputTokens !== tokens) throw new Error(`${outputTokens} tokens, not ${tokens}`);
      return inputTokens;
    };
    const promptTokens = await Promise.all(Array.from({ length: streams }, (_, i) => one(i)));
    return { seconds: (performance.now() - begin) / 1e3, promptTokens };
  }

  async describe() {
    return (await this.lorax.engine.ready()).deviceDescription;
  }

  dispose() {
    return this.lorax.dispose();
  }
}
