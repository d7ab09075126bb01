import path from 'node:path';
import { expect, test } from 'vitest';

import { readGenerationDefaults } from '../../../worker/files/generation-defaults.js';
import { LLAMA, expectError, temporaryDirectory, writeJson } from './fixtures.js';

function directory(files: Record<string, unknown>): string {
  const at = temporaryDirectory();
  writeJson(path.join(at, 'config.json'), LLAMA);
  for (const [name, value] of Object.entries(files)) writeJson(path.join(at, name), value);
  return at;
}

test('without a generation_config.json: greedy, eos from config.json', async () => {
  const defaults = await readGenerationDefaults(directory({}), 32);
  expect(defaults).toEqual({ sampling: { temperature: 0 }, eosTokenIds: [2], ignored: [] });
});

test('eos is the union of config, generation config and tokenizer', async () => {
  const at = directory({
    'generation_config.json': { eos_token_id: [9, 7, 2], do_sample: false, temperature: 0.3 },
    'tokenizer_config.json': {
      eos_token: { content: '<|im_end|>' },
      added_tokens_decoder: { '5': { content: '<|im_start|>' }, '6': { content: '<|im_end|>' } },
    },
  });
  const defaults = await readGenerationDefaults(at, 32);
  expect(defaults.eosTokenIds).toEqual([2, 6, 7, 9]);
  expect(defaults.sampling).toEqual({ temperature: 0 });
});

test('the tokenizer’s eos may be found in tokenizer.json only', async () => {
  const at = directory({
    'tokenizer_config.json': { eos_token: '</s>' },
    'tokenizer.json': { added_tokens: [{ id: 4, content: '</s>' }] },
  });
  expect((await readGenerationDefaults(at, 32)).eosTokenIds).toEqual([2, 4]);
});

test('do_sample takes what the file says, and no more', async () => {
  const at = directory({
    'generation_config.json': {
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      min_p: 0,
      repetition_penalty: 1.05,
      max_new_tokens: 2048,
      transformers_version: '4.57.1',
    },
  });
  const { sampling, ignored } = await readGenerationDefaults(at, 32);
  expect(sampling).toEqual({
    temperature: 0.6,
    topK: 20,
    topP: 0.95,
    minP: 0,
    repetitionPenalty: 1.05,
  });
  expect(ignored).toEqual([]);
  const bare = directory({ 'generation_config.json': { do_sample: true } });
  expect((await readGenerationDefaults(bare, 32)).sampling).toEqual({ temperature: 1 });
});

test('settings that this package lacks are listed', async () => {
  const at = directory({
    'generation_config.json': { num_beams: 4, typical_p: 1.0, no_repeat_ngram_size: 3 },
  });
  const { ignored } = await readGenerationDefaults(at, 32);
  expect(ignored).toEqual(['num_beams', 'no_repeat_ngram_size']);
});

test.each<[string, unknown]>([
  ['eos_token_id', 32],
  ['eos_token_id', [1, -1]],
  ['eos_token_id', '2'],
  ['repetition_penalty', 0],
  ['top_p', 1.5],
  ['min_p', -0.1],
  ['temperature', 'hot'],
  ['top_k', -1],
  ['do_sample', 1],
])('%s: %j is refused by name', async (field, value) => {
  const at = directory({ 'generation_config.json': { do_sample: true, [field]: value } });
  const read = () => readGenerationDefaults(at, 32);
  await expectError(read, 'MODEL_INVALID', field, 'generation_config.json');
});
