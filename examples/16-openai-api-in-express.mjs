// OpenAI's API below /ai of an Express app, for one user's token alone. Asks itself once with OpenAI's
// client and ends.
//   node scripts/bootstrap.mjs && node examples/16-openai-api-in-express.mjs
import express from 'express';
import { createEngine } from 'lorax-js/engine';
import { createServer, toNodeHandler } from 'lorax-js/server';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const engine = createEngine({ model: demo });
await engine.adapters.add('pirate', `${demo}/adapters/pirate`);

const app = express();
const mayAsk = (request, response, next) =>
  request.get('authorization') === 'Bearer secret' ? next() : response.status(401).json({});
app.use('/ai', mayAsk, toNodeHandler(createServer({ engine })));

const server = app.listen(0, async () => {
  const baseURL = `http://localhost:${server.address().port}/ai/v1`;
  const ask = (apiKey) =>
    new OpenAI({ baseURL, apiKey }).chat.completions.create({
      model: 'pirate',
      messages: [{ role: 'user', content: 'Where is my order 4821?' }],
      max_tokens: 60,
      stream: true,
    });
  for await (const { choices } of await ask('secret')) {
    process.stdout.write(choices[0]?.delta.content ?? '');
  }
  const error = await ask('wrong').catch((reason) => reason);
  console.log(`\nwith another token: ${error.status}`);
  server.close();
  server.closeAllConnections();
  await engine.dispose();
});
