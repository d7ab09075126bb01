// ai 7 and ai 6 as one thing, each with the provider made for it: the suites are written once.
import * as ai7 from 'ai';
import { MockLanguageModelV4 } from 'ai/test';
import * as ai6 from 'ai6';
import { MockLanguageModelV3 } from 'ai6/test';
import { createLorax } from 'lorax-js';
import type { LoraxOptions, LoraxProvider } from 'lorax-js';
import { createLorax as createLorax6 } from 'lorax-js/ai6';
import { exactDevice } from '../../e2e/suites/test-device.js';

export type Functions = Pick<
  typeof ai7,
  | 'APICallError'
  | 'NoSuchModelError'
  | 'Output'
  | 'UnsupportedFunctionalityError'
  | 'createProviderRegistry'
  | 'customProvider'
  | 'extractReasoningMiddleware'
  | 'generateText'
  | 'jsonSchema'
  | 'stepCountIs'
  | 'streamText'
  | 'tool'
  | 'wrapLanguageModel'
>;

export interface Sdk {
  name: string;
  specificationVersion: 'v4' | 'v3';
  /** ai 6's are the same as far as these suites use them. */
  ai: Functions;
  createLorax(options: LoraxOptions): LoraxProvider;
  MockLanguageModel: typeof MockLanguageModelV4;
}

/** Suites compare what the same request gives twice. */
const device = (options: LoraxOptions): LoraxOptions => ({ ...exactDevice, ...options });

export const sdk7: Sdk = {
  name: 'ai 7',
  specificationVersion: 'v4',
  ai: ai7,
  createLorax: (options) => createLorax(device(options)),
  MockLanguageModel: MockLanguageModelV4,
};

export const sdk6: Sdk = {
  name: 'ai 6',
  specificationVersion: 'v3',
  ai: ai6 as unknown as Functions,
  createLorax: (options) => createLorax6(device(options)) as unknown as LoraxProvider,
  MockLanguageModel: MockLanguageModelV3 as unknown as typeof MockLanguageModelV4,
};

export const user = (text: string) => [
  { role: 'user' as const, content: [{ type: 'text' as const, text }] },
];
