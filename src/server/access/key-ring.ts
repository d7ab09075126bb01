/**
 * Keys -> whose they are. Holds sha256 digests alone; a lookup compares with every key in the same time,
 * so how long it takes tells nothing of which key was nearly right.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { invalidOptions } from '../../check-shape.js';

const MIN_LENGTH = 16;

export class KeyRing<OWNER> {
  readonly #keys: { digest: Buffer; owner: OWNER }[] = [];

  get size(): number {
    return this.#keys.length;
  }

  /**
   * `text`: a key, `sha256:<hex>` of one, or `env:<NAME>`. Throws INVALID_OPTIONS, which never holds the key.
   */
  add(text: string, owner: OWNER, field: string, env = process.env): void {
    const digest = digestOf(text, field, env);
    if (this.#keys.some((key) => key.digest.equals(digest))) {
      throw invalidOptions(field, `${field} is another one's key as well.`);
    }
    this.#keys.push({ digest, owner });
  }

  /** undefined = nobody's. */
  find(key: string): OWNER | undefined {
    const digest = sha256(key);
    let found: OWNER | undefined;
    // To the end: neither where a key stands nor whether there is one shows.
    for (const { digest: known, owner } of this.#keys) {
      if (timingSafeEqual(digest, known)) found = owner;
    }
    return found;
  }
}

function digestOf(text: string, field: string, env: NodeJS.ProcessEnv): Buffer {
  const hashed = /^sha256:([0-9a-f]{64})$/i.exec(text)?.[1];
  if (hashed !== undefined) return Buffer.from(hashed, 'hex');
  if (text.startsWith('sha256:')) {
    throw invalidOptions(field, `${field}: sha256: must be followed by 64 hexadecimal digits.`);
  }
  const variable = /^env:(.*)$/s.exec(text)?.[1];
  const key = variable === undefined ? text : (env[variable] ?? '');
  if (key.length < MIN_LENGTH) {
    const where = variable === undefined ? '' : ` (the variable ${variable})`;
    const message = `${field}${where} must be a key of at least ${MIN_LENGTH} characters.`;
    throw invalidOptions(field, message);
  }
  return sha256(key);
}

const sha256 = (text: string) => createHash('sha256').update(text).digest();
