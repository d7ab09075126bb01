import { generateText } from 'ai';
import { createLorax } from 'lorax-js';

const [model = '../../models/demo', robot = './robot'] = process.argv.slice(2);
const lorax = createLorax({ model, adapters: { robot } });
for (const name of ['base', 'robot']) {
  const { text } = await generateText({ model: lorax(name), prompt: 'Where is my order 4821?' });
  console.log(`${name}: ${text}`);
}
