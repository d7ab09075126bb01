// Output that cannot be malformed: a schema, a choice or a pattern is enforced token by token, so even
// this tiny model, which has never seen JSON, answers in it.
import { generateText, Output, streamText } from 'ai';
import { createLorax } from 'lorax-js';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));
const lorax = createLorax({ model: demo, defaults: { maxOutputTokens: 80 } });
const prompt = 'Where is my order 4821?';

const ticket = z.object({
  topic: z.enum(['shipping', 'returns', 'billing']),
  order: z.int().min(1000).max(9999),
  urgent: z.boolean(),
  reply: z.string().max(60),
});

// An object that matches a schema; a short budget closes it in time.
const { output } = await generateText({
  ...{ model: lorax(), prompt },
  output: Output.object({ schema: ticket }),
});
console.log(output);

// A list, element by element while it is written.
const { elementStream } = streamText({
  ...{ model: lorax(), prompt },
  output: Output.array({
    element: ticket.pick({ topic: true, order: true }),
    minItems: 2,
    maxItems: 3,
  }),
});
for await (const element of elementStream) console.log('element', element);

// One of some options, without any JSON around it.
const mood = await generateText({
  ...{ model: lorax(), prompt: 'I have been waiting for weeks!' },
  providerOptions: { lorax: { choice: ['happy', 'neutral', 'angry'] } },
});
console.log('mood:', mood.text);

// A pattern; `grammar` takes GBNF in the same place.
const code = await generateText({
  ...{ model: lorax(), prompt, temperature: 1 },
  providerOptions: { lorax: { regex: '[A-Z]{2}-\\d{4}(?:-(?:EU|US))?' } },
});
console.log('code:', code.text);

// What cannot be enforced is refused by name.
try {
  await generateText({
    ...{ model: lorax(), prompt },
    output: Output.object({
      schema: z.object({ tags: z.array(z.string()).meta({ uniqueItems: true }) }),
    }),
  });
} catch (error) {
  console.log(`${error.code}: ${error.message}`);
}

await lorax.dispose();
