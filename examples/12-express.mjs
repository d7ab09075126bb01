// Behind Express: POST /ask/pirate streams the adapter's answer as text. Asks itself once and ends.
//   node scripts/bootstrap.mjs && node examples/12-express.mjs
import { pipeTextStreamToResponse, streamText, toTextStream } from 'ai';
import express from 'express';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const adapters = { json: `${demo}/adapters/json`, pirate: `${demo}/adapters/pirate` };
const lorax = createLorax({ model: demo, adapters, defaults: { maxOutputTokens: 80 } });

const app = express();
app.post('/ask/:adapter', express.text(), async (request, response) => {
  const { adapter } = request.params;
  if (!Object.hasOwn(adapters, adapter)) return response.status(404).send('no such adapter');
  // A client that goes away ends its answer.
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const { stream } = streamText({
    model: lorax(adapter),
    prompt: request.body,
    abortSignal: gone.signal,
  });
  return pipeTextStreamToResponse({ response, stream: toTextStream({ stream }) });
});

const server = app.listen(0, async () => {
  const ask = (adapter) =>
    fetch(`http://localhost:${server.address().port}/ask/${adapter}`, {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: 'Where is my order 4821?',
    });
  for await (const text of (await ask('pirate')).body.pipeThrough(new TextDecoderStream())) {
    process.stdout.write(text);
  }
  console.log(`\nsomebody else: ${(await ask('somebody')).status}`);
  server.close();
});
