/**
 * Reads a JSON file as an object and takes it apart field by field.
 *
 * What is read is checked for its type; what nobody asked for is left over, and `rejectUnread`
 * names it, so that no setting of a model or an adapter is ever ignored by accident. Every error
 * names file and field. Used for config.json, generation_config.json and adapter_config.json.
 */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';

import { LoraxError, type LoraxErrorCode } from '../../src/errors.js';

export type JsonObject = Record<string, unknown>;

/** The codes for one kind of directory: what is broken, and what is merely not supported. */
export interface FileErrorCodes {
  invalid: LoraxErrorCode;
  unsupported: LoraxErrorCode;
}

export const MODEL_CODES: FileErrorCodes = {
  invalid: 'MODEL_INVALID',
  unsupported: 'MODEL_UNSUPPORTED',
};
export const ADAPTER_CODES: FileErrorCodes = {
  invalid: 'ADAPTER_INVALID',
  unsupported: 'ADAPTER_UNSUPPORTED',
};

/** Configurations are kilobytes; tokenizers are tens of megabytes. */
const MAX_JSON_BYTES = 256 << 20;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value as an error message shows it: JSON, cut short. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

/** Node's own message (ENOENT, EACCES, ...) under one of our codes. */
export function fileError(file: string, code: LoraxErrorCode, cause: unknown): LoraxError {
  const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
  const what = missing ? 'no such file' : (cause as Error).message;
  return new LoraxError(code, `${file}: ${what}`, { data: { file }, cause });
}

/** Resolves to undefined only where the file is absent and `optional` is set. */
export async function readJsonObject(
  file: string,
  codes: FileErrorCodes,
  options: { optional: true },
): Promise<JsonObject | undefined>;
export async function readJsonObject(file: string, codes: FileErrorCodes): Promise<JsonObject>;
export async function readJsonObject(
  file: string,
  codes: FileErrorCodes,
  options: { optional?: boolean } = {},
): Promise<JsonObject | undefined> {
  const invalid = (message: string, cause?: unknown) =>
    new LoraxError(codes.invalid, `${file}: ${message}`, { data: { file }, cause });
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > MAX_JSON_BYTES) throw invalid(`${size} bytes is too large for a JSON file`);
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (LoraxError.isInstance(error)) throw error;
    if (options.optional && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError(file, codes.invalid, error);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(`not valid JSON: ${(error as Error).message}`, error);
  }
  if (!isJsonObject(value)) throw invalid(`expected a JSON object, found ${show(value)}`);
  return value;
}

/** null is how Python writes "not set", so it reads as absent everywhere. */
export class ConfigReader {
  private readonly read = new Set<string>();

  constructor(
    readonly file: string,
    private readonly values: JsonObject,
    private readonly codes: FileErrorCodes,
    /** Where `values` lies within the file, e.g. "rope_scaling."; '' for the whole file. */
    private readonly prefix = '',
  ) {}

  invalid(field: string, message: string): LoraxError {
    return this.error(this.codes.invalid, field, message);
  }

  unsupported(field: string, message: string): LoraxError {
    return this.error(this.codes.unsupported, field, message);
  }

  has(field: string): boolean {
    return Object.hasOwn(this.values, field) && this.values[field] !== null;
  }

  /** As it is in the file, null included. */
  raw(field: string): unknown {
    this.read.add(field);
    return Object.hasOwn(this.values, field) ? this.values[field] : undefined;
  }

  value(field: string): unknown {
    return this.raw(field) ?? undefined;
  }

  integer(field: string, minimum: number): number | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (!Number.isSafeInteger(value) || (value as number) < minimum) {
      throw this.invalid(field, `expected an integer >= ${minimum}, found ${show(value)}`);
    }
    return value as number;
  }

  requiredInteger(field: string, minimum: number): number {
    return this.required(field, this.integer(field, minimum), 'an integer');
  }

  /** Finite and > 0. */
  positive(field: string): number | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      throw this.invalid(field, `expected a number > 0, found ${show(value)}`);
    }
    return value;
  }

  requiredPositive(field: string): number {
    return this.required(field, this.positive(field), 'a number > 0');
  }

  boolean(field: string): boolean | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (typeof value !== 'boolean') {
      throw this.invalid(field, `expected true or false, found ${show(value)}`);
    }
    return value;
  }

  string(field: string): string | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (typeof value !== 'string') {
      throw this.invalid(field, `expected a string, found ${show(value)}`);
    }
    return value;
  }

  strings(field: string): string[] | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.invalid(field, `expected a list of strings, found ${show(value)}`);
    }
    return value as string[];
  }

  object(field: string): ConfigReader | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (!isJsonObject(value)) {
      throw this.invalid(field, `expected an object, found ${show(value)}`);
    }
    return new ConfigReader(this.file, value, this.codes, `${this.prefix}${field}.`);
  }

  /** Fields of the file, in its order. */
  fields(): string[] {
    return Object.keys(this.values);
  }

  /** Absent, null or one of `allowed`; anything else is a feature this package lacks. */
  only(field: string, allowed: readonly unknown[], why: string): void {
    const value = this.value(field);
    if (value === undefined || allowed.some((each) => Object.is(each, value))) return;
    throw this.unsupported(field, `${show(value)} is not supported: ${why}`);
  }

  /** Names the first field that was never asked for and is not known to be harmless. */
  rejectUnread(harmless: ReadonlySet<string>, isUnset: (value: unknown) => boolean): void {
    for (const field of this.fields()) {
      if (this.read.has(field) || harmless.has(field) || isUnset(this.values[field])) continue;
      throw this.unsupported(
        field,
        `unknown field (value ${show(this.values[field])}); it may change the result, so it is ` +
          'not ignored. If it has no effect, remove it from the file',
      );
    }
  }

  private required<T>(field: string, value: T | undefined, what: string): T {
    if (value === undefined) throw this.invalid(field, `missing; expected ${what}`);
    return value;
  }

  private error(code: LoraxErrorCode, field: string, message: string): LoraxError {
    const name = `${this.prefix}${field}`;
    return new LoraxError(code, `${path.basename(this.file)}: ${name}: ${message} (${this.file})`, {
      data: { file: this.file, field: name },
    });
  }
}
