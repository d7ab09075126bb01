// node-llama-cpp as a peer of the benchmark: one JSON command a line in, one JSON answer a line out.
//
//   node llama-peer.mjs --model FILE.gguf --adapters DIR [--style lock-step|loops] [--threads N]
// `lock-step` asks every sequence for its next token in ascending order and waits for all: each step
// is one full batch, its best case. `loops` is one `for await` per sequence, as users write it. A LoRA
// belongs to a context there, so sequences over k adapters are spread over k contexts.
// Commands and answers: README.md.

import { readdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import { answerCommands } from '../answer-commands.mjs';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    adapters: { type: 'string' }, // folder of *.lora.gguf
    style: { type: 'string', default: 'lock-step' },
    threads: { type: 'string' },
  },
});
if (!values.model || !['lock-step', 'loops'].includes(values.style)) {
  process.stderr.write(
    'usage: llama-peer.mjs --model FILE [--adapters DIR] [--style lock-step|loops]\n',
  );
  process.exit(2);
}
const adapterFiles = values.adapters
  ? readdirSync(values.adapters)
      .filter((name) => name.endsWith('.lora.gguf'))
      .sort()
      .map((name) => path.join(values.adapters, name))
  : [];

const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
});
const model = await llama.loadModel({ modelPath: values.model });
const vocabularySize = model.fileInfo.metadata.tokenizer.ggml.tokens.length;

await answerCommands(`node-llama-cpp ${path.basename(values.model)}, ${values.style}`, {
  prefill,
  decode,
});
await llama.dispose();

/** `length` ordinary token ids that differ between sequences (no control token: ids from 1000 on). */
function promptOf(length, sequence) {
  const id = (i) => 1000 + ((i * 7919 + sequence * 104729 + i * i) % (vocabularySize - 1000));
  return Array.from({ length }, (_, i) => id(i));
}

/** The sequences of a case, [sequence 0, 1, ...]; sequence s is in context s % adapters. */
async function openSequences({ sequences, adapters, prompt, tokens }) {
  if (adapters > adapterFiles.length) {
    throw new Error(`${adapters} adapters asked for, ${adapterFiles.length} in --adapters`);
  }
  const numContexts = Math.max(1, adapters);
  const contexts = [];
  for (let index = 0; index < numContexts; index++) {
    const own = Math.floor((sequences - 1 - index) / numContexts) + 1;
    if (own <= 0) break;
    contexts.push(
      await model.createContext({
        sequences: own,
        contextSize: prompt + tokens + 16,
        batchSize: Math.max(512, own),
        // Contexts decode at the same time; their threads would only spin on each other.
        ...(values.threads
          ? { threads: Math.max(1, Math.floor(Number(values.threads) / numContexts)) }
          : {}),
        ...(adapters > 0 ? { lora: { adapters: [{ filePath: adapterFiles[index] }] } } : {}),
      }),
    );
  }
  const opened = Array.from({ length: sequences }, (_, s) =>
    contexts[s % numContexts].getSequence(),
  );
  return { opened, dispose: () => Promise.all(contexts.map((context) => context.dispose())) };
}

/** Seconds that all cores together spent in this process. */
function cpuSince(before) {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

function generate(sequence, tokens) {
  return sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true });
}

async function prefill({ prompt, adapters = 0 }) {
  const { opened, dispose } = await openSequences({ sequences: 1, adapters, prompt, tokens: 1 });
  try {
    const cpuBefore = process.cpuUsage();
    const startedAt = performance.now();
    const tokens = generate(opened[0], promptOf(prompt, 0));
    await tokens.next();
    const seconds = (performance.now() - startedAt) / 1000;
    const cpuSeconds = cpuSince(cpuBefore);
    await tokens.return();
    return { tokensPerSecond: prompt / seconds, promptTokens: prompt, cpuSeconds };
  } finally {
    await dispose();
  }
}

async function decode(command) {
  const { sequences, adapters = 0, tokens, prompt } = command;
  const { opened, dispose } = await openSequences({ ...command, adapters });
  try {
    const streams = opened.map((sequence, s) => generate(sequence, promptOf(prompt, s)));
    const run = values.style === 'lock-step' ? lockStep : loops;
    const { countingFrom, cpuBefore, counted } = await run(streams, tokens);
    const seconds = (performance.now() - countingFrom) / 1000;
    const cpuSeconds = cpuSince(cpuBefore);
    await Promise.all(streams.map((stream) => stream.return()));
    return { tokensPerSecond: counted / seconds, generated: sequences * tokens, cpuSeconds };
  } finally {
    await dispose();
  }
}

/** Counted from the moment every sequence has its first token. */
async function lockStep(streams, tokens) {
  await Promise.all(streams.map((stream) => stream.next()));
  const cpuBefore = process.cpuUsage();
  const countingFrom = performance.now();
  for (let step = 1; step < tokens; step++) {
    await Promise.all(streams.map((stream) => stream.next()));
  }
  return { countingFrom, cpuBefore, counted: streams.length * (tokens - 1) };
}

async function loops(streams, tokens) {
  let waiting = streams.length;
  let countingFrom = 0;
  let cpuBefore;
  let early = 0; // tokens that came before every sequence had its first
  await Promise.all(
    streams.map(async (stream) => {
      let seen = 0;
      for await (const _token of stream) {
        seen += 1;
        if (waiting > 0) early += 1;
        if (seen === 1 && --waiting === 0) {
          countingFrom = performance.now();
          cpuBefore = process.cpuUsage();
        }
        if (seen === tokens) break;
      }
    }),
  );
  return { countingFrom, cpuBefore, counted: streams.length * tokens - early };
}
