// Behind Hono: POST /ask/pirate streams the adapter's answer as text. Asks itself once and ends.
//   node scripts/bootstrap.mjs && node examples/13-hono.mjs
import { serve } from '@hono/node-server';
import { createTextStreamResponse, streamText, toTextStream } from 'ai';
import { Hono } from 'hono';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const adapters = { json: `${demo}/adapters/json`, pirate: `${demo}/adapters/pirate` };
const lorax = createLorax({ model: demo, adapters, defaults: { maxOutputTokens: 80 } });

const app = new Hono();
app.post('/ask/:adapter', async (context) => {
  const adapter = context.req.param('adapter');
  if (!Object.hasOwn(adapters, adapter)) return context.text('no such adapter', 404);
  const { stream } = streamText({
    model: lorax(adapter),
    prompt: await context.req.text(),
    abortSignal: context.req.raw.signal, // a client that goes away ends its answer
  });
  return createTextStreamResponse({ stream: toTextStream({ stream }) });
});

const server = serve({ fetch: app.fetch, port: 0 }, async ({ port }) => {
  const ask = (adapter) =>
    fetch(`http://localhost:${port}/ask/${adapter}`, {
      method: 'POST',
      body: 'Where is my order 4821?',
    });
  for await (const text of (await ask('pirate')).body.pipeThrough(new TextDecoderStream())) {
    process.stdout.write(text);
  }
  console.log(`\nsomebody else: ${(await ask('somebody')).status}`);
  server.close();
});
