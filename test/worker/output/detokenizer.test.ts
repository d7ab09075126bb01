import { describe, expect, it } from 'vitest';
import { Detokenizer, incompleteTail } from '../../../worker/output/detokenizer.js';
import { FIXTURES, loadFixture, loadLibraryFixture } from '../fixtures.js';
import { Random } from '../random.js';

describe.each(FIXTURES)('Detokenizer (%s)', (name) => {
  it('gives, piece by piece, what decoding everything at once gives', async () => {
    const { table } = await loadFixture(name);
    const library = loadLibraryFixture(name);
    // What the reference does with a run of bytes is its own affair only where it is no UTF-8.
    for (let seed = 0; seed < 400; seed++) {
      const random = new Random(seed);
      const ids = Array.from({ length: 1 + random.below(40) }, () => random.below(table.size));
      const detokenizer = new Detokenizer(table);
      const pieces = ids.map((id) => detokenizer.push(id));
      pieces.push(detokenizer.flush());
      const whole = library.decode(ids, {
        skip_special_tokens: true,
        clean_up_tokenization_spaces: false,
      });
      expect(pieces.join(''), `seed ${seed}`).toBe(whole);
    }
  });

  it('is never half a character, nor a token late, on real text', async () => {
    const tokenizer = await loadFixture(name);
    const texts = ['naïve 你好 😀👩‍👩‍👧 straße', 'a\u{10FFFF}b', '\uFEFFbom', 'plain text only'];
    for (const text of texts) {
      const prefix = await tokenizer.encodeText('', 10);
      const ids = (await tokenizer.encodeText(text, 1000)).slice(prefix.length);
      const bytes = Buffer.from(text);
      const detokenizer = new Detokenizer(tokenizer.table);
      let given = '';
      let seen = 0;
      for (const id of ids) {
        given += detokenizer.push(id);
        seen += tokenizer.table.bytes(id).length;
        // The leading space that sentencepiece adds is in the bytes but not in the text.
        const end = name === 'sentencepiece' ? seen - 1 : seen;
        const complete = new TextDecoder('utf-8', { ignoreBOM: true }).decode(
          bytes.subarray(0, end),
          { stream: true },
        );
        expect(given).toBe(complete);
      }
      expect(given + detokenizer.flush()).toBe(text);
    }
  });

  it('does not show special tokens and knows nothing of ids beyond its table', async () => {
    const { table, eosTokenId } = await loadFixture(name);
    const detokenizer = new Detokenizer(table);
    expect(detokenizer.push(eosTokenId as number)).toBe('');
    expect(detokenizer.push(table.size + 5)).toBe('');
    expect(detokenizer.flush()).toBe('');
  });
});

it('shows added tokens that are not special', async () => {
  const { table } = await loadFixture('chatml');
  const think = loadLibraryFixture('chatml').token_to_id('<think>') as number;
  expect(new Detokenizer(table).push(think)).toBe('<think>');
});

describe('incompleteTail', () => {
  // The reference: what a streaming decoder holds back.
  const held = (bytes: Uint8Array) => {
    const whole = new TextDecoder('utf-8', { ignoreBOM: true });
    const shown = whole.decode(bytes, { stream: true });
    const rest = Buffer.from(bytes).toString('utf8').slice(shown.length);
    return rest.length > 0;
  };

  it('holds back exactly when more bytes could complete a character', () => {
    const interesting = [
      0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
      0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff,
    ];
    let cases = 0;
    for (const a of interesting) {
      for (const b of interesting) {
        for (const c of interesting) {
          const bytes = Uint8Array.of(0x41, a, b, c);
          expect(incompleteTail(bytes) > 0, Buffer.from(bytes).toString('hex')).toBe(held(bytes));
          cases++;
        }
      }
    }
    expect(cases).toBe(interesting.length ** 3);
  });
});
