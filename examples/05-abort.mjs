// Three ways to leave an answer: a signal, a timeout, `break`. The batch goes on without it.
import { streamText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const lorax = createLorax({ model: demo });

// An endless answer: nothing but a maximum or an abort ends it.
const endless = {
  model: lorax(),
  prompt: 'Where is my order 4821?',
  providerOptions: { lorax: { ignoreEos: true } },
};
await lorax.engine.ready();

const controller = new AbortController();
const stopped = streamText({
  ...endless,
  abortSignal: controller.signal,
  onAbort: () => console.log('stopped by its signal'),
});
let deltas = 0;
for await (const _ of stopped.textStream) if (++deltas === 10) controller.abort();

const late = streamText({
  ...endless,
  abortSignal: AbortSignal.timeout(200),
  onAbort: () => console.log('stopped by a timeout'),
});
for await (const _ of late.textStream);

// Leaving a loop is silent; what was computed until then is still reported.
const messages = [{ role: 'user', content: endless.prompt }];
const usage = new Promise((resolve) => {
  const sampling = { ignoreEos: true };
  const events = lorax.engine.generate({ messages, sampling, onUsage: resolve });
  (async () => {
    for await (const event of events) if (event.type === 'delta') break;
  })();
});
console.log(`left after ${(await usage).outputTokens} tokens`);

const { requests, totals, pages } = await lorax.stats();
console.log(`${totals.aborted} aborted, ${requests.running} running, ${pages.kv} pages in use`);
