// The small tokenizers of tokenizer/fixtures/, as the worker and as the library see them.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { Tokenizer } from '../../worker/tokenizer/tokenizer.js';

export type FixtureName = 'chatml' | 'llama3' | 'sentencepiece';

export const FIXTURES: readonly FixtureName[] = ['chatml', 'llama3', 'sentencepiece'];

export const fixtureDirectory = (name: FixtureName) =>
  fileURLToPath(new URL(`./tokenizer/fixtures/${name}`, import.meta.url));

export const loadFixture = (name: FixtureName) => Tokenizer.load(fixtureDirectory(name));

export function loadLibraryFixture(name: FixtureName): LibraryTokenizer {
  const read = (file: string) =>
    JSON.parse(readFileSync(`${fixtureDirectory(name)}/${file}`, 'utf8')) as object;
  return new LibraryTokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
}
