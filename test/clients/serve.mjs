// A server on the demo model for the Python clients' suites, on a free port. Prints its address as its
// first line, and ends with its standard input. Started by scripts/test-clients.mjs.
import { createEngine } from 'lorax-js/engine';
import { createServer, serveOnNode } from 'lorax-js/server';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const engine = createEngine({ model: demo, device: 'cpu' });
for (const name of ['pirate', 'french', 'json']) {
  await engine.adapters.add(name, `${demo}/adapters/${name}`);
}
const server = createServer({ engine, adapterUpdates: { sources: [`${demo}/adapters/*`] } });
const node = await serveOnNode(server, { port: 0 });
process.stdout.write(`${node.url}\n`);
process.stdin.resume();
process.stdin.on('end', async () => {
  await node.close();
  await engine.dispose();
});
