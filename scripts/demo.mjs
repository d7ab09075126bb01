// `npm run demo`: the same questions to the base and to every adapter, at the same time, in one batch.
//
//   npm run demo                        the embedded support-desk model
//   npm run demo -- --model smollm2     SmolLM2-135M-Instruct (fetched once; needs Python 3)
//
// Every answer is one ordinary streamText() call; the figures at the end come from lorax.stats().

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { streamText } from 'ai';
import { createLorax } from 'lorax-js';
import { AnswerBoard } from './demo/answer-board.mjs';
import { sparkline } from './demo/sparkline.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

const SHOWS = {
  demo: {
    model: () => path.join(root, 'models/demo'),
    adapters: path.join(root, 'models/demo/adapters'),
    maxOutputTokens: 80,
    questions: [
      'Where is my order 4821?',
      'How much is the canvas backpack?',
      'Do you deliver to Lisbon?',
    ],
  },
  smollm2: {
    model: fetchSmolLM2,
    adapters: path.join(root, 'models/smollm2/adapters'),
    maxOutputTokens: 48,
    questions: ['Where is my order?', 'What is the capital of France?', 'Tell me about the sea.'],
  },
};

const { values } = parseArgs({ options: { model: { type: 'string', default: 'demo' } } });
const show = SHOWS[values.model];
if (!show) {
  console.error(`--model ${values.model}: choose one of ${Object.keys(SHOWS).join(', ')}.`);
  process.exit(2);
}

const adapters = Object.fromEntries(
  readdirSync(show.adapters, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => [entry.name, path.join(show.adapters, entry.name)]),
);
const lorax = createLorax({ model: show.model(), adapters });
const speakers = ['base', ...Object.keys(adapters)];

const { deviceDescription } = await lorax.engine.ready();
// Otherwise each is loaded by its first request.
await Promise.all(Object.keys(adapters).map((name) => lorax.prefetch(name)));
console.log(`${speakers.length - 1} adapters and their base, one batch, on ${deviceDescription}\n`);

const board = new AnswerBoard(process.stdout, show.questions, speakers);
const startedAt = performance.now();
let deltas = 0;
const pagesInUse = [];
const watch = setInterval(observe, 25);

const results = await Promise.all(
  show.questions.flatMap((question, q) =>
    speakers.map((speaker, s) => answer(question, q, speaker, s)),
  ),
);
const seconds = (performance.now() - startedAt) / 1000;
clearInterval(watch);
await observe();
board.finish();

const stats = await lorax.stats();
const tokens = results.reduce((sum, usage) => sum + usage.outputTokens, 0);
const batchSizes = stats.recentSteps.map(
  (step) => step.decodeTokens + (step.prefillTokens ? 1 : 0),
);
const widest = Math.max(...stats.recentSteps.map((step) => step.adapters));
const { pages } = stats;
console.log(`
${results.length} answers, ${tokens} tokens in ${seconds.toFixed(2)} s: ${Math.round(tokens / seconds)} tokens/s
batch size over time  ${sparkline(batchSizes, 40)}  at most ${Math.max(...batchSizes)} rows, ${widest} adapters
pages in use          ${sparkline(pagesInUse, 40)}  at most ${Math.max(...pagesInUse)} of ${pages.total}; idle adapters keep ${pages.adapter}`);
await lorax.dispose();

async function answer(question, q, speaker, s) {
  const result = streamText({
    model: lorax(speaker),
    prompt: question,
    temperature: 0,
    maxOutputTokens: show.maxOutputTokens,
    onError: ({ error }) => {
      throw error;
    },
  });
  for await (const text of result.textStream) {
    board.append(q, s, text);
    // Not by the clock alone: a burst of messages from the worker holds timers back.
    if (++deltas % 10 === 0) void observe();
  }
  board.complete(q, s);
  return result.usage;
}

async function observe() {
  const now = await lorax.stats();
  pagesInUse.push(now.pages.kv + now.pages.adapter);
  const rate = Math.round(deltas / ((performance.now() - startedAt) / 1000));
  board.setStatus(
    `${now.requests.running} running, ${rate} pieces/s, pages ${now.pages.kv} KV + ${now.pages.adapter} adapter of ${now.pages.total}`,
  );
}

function fetchSmolLM2() {
  const directory = path.join(root, '.cache/models/SmolLM2-135M-Instruct');
  const fetched = spawnSync(
    process.execPath,
    [path.join(root, 'scripts/fetch-smollm2.mjs'), '--out', directory],
    { stdio: 'inherit' },
  );
  if (fetched.status !== 0) process.exit(fetched.status ?? 1);
  return directory;
}
