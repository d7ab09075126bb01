// The demo model with another chat template, and other special tokens, in a directory of its own.
// Its weights know neither: what it then says is close to random, and that is what it is for.
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const demo = fileURLToPath(new URL('../models/demo', import.meta.url));

export interface VariantOptions {
  /** Tokens that spell nothing in the output. */
  special?: readonly string[];
  /** Tokens that spell themselves. */
  added?: readonly string[];
}

interface TokenizerJson {
  added_tokens: { id: number; content: string; special: boolean }[];
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
}

export interface DemoVariant {
  directory: string;
  /** Ids of the new tokens. */
  tokens: ReadonlyMap<string, number>;
  remove(): void;
}

/** New tokens take the places of the vocabulary's last words. `template`: null = its own. */
export function demoVariant(
  template: string | null,
  { special = [], added = [] }: VariantOptions = {},
): DemoVariant {
  const directory = mkdtempSync(join(tmpdir(), 'lorax-variant-'));
  for (const file of readdirSync(demo)) {
    if (/\.(json|safetensors)$/.test(file) && file !== 'tokenizer.json') {
      symlinkSync(join(demo, file), join(directory, file));
    }
  }
  symlinkSync(join(demo, 'adapters'), join(directory, 'adapters'));
  if (template !== null) writeFileSync(join(directory, 'chat_template.jinja'), template);
  const tokenizer = JSON.parse(readFileSync(join(demo, 'tokenizer.json'), 'utf8')) as TokenizerJson;
  const tokens = new Map([
    ...special.map((content) => [content, giveUpLastWord(tokenizer, content, true)] as const),
    ...added.map((content) => [content, giveUpLastWord(tokenizer, content, false)] as const),
  ]);
  writeFileSync(join(directory, 'tokenizer.json'), JSON.stringify(tokenizer));
  return { directory, tokens, remove: () => rmSync(directory, { recursive: true }) };
}

function giveUpLastWord(
  { added_tokens: added, model }: TokenizerJson,
  content: string,
  special: boolean,
): number {
  const last = model.merges.pop();
  if (last === undefined) throw new Error('no words left');
  const word = typeof last === 'string' ? last.replace(' ', '') : last.join('');
  const id = model.vocab[word];
  if (id === undefined) throw new Error(`${word} is no word`);
  delete model.vocab[word];
  model.vocab[content] = id;
  added.push({ ...added[0], id, content, special });
  return id;
}
