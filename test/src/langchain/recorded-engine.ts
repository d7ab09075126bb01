/** A fake engine whose requests a test can look at. */
import type { FakeAnswer } from '../../../src/testing/fake-answer.js';
import { FakeEngine } from '../../../src/testing/fake-engine.js';
import type { GenerateRequest } from '../../../src/types.js';

export class RecordedEngine extends FakeEngine {
  readonly requests: GenerateRequest[] = [];

  constructor(answers: Record<string, FakeAnswer> = {}, tokenMs = 0) {
    super({ answers, tokenMs });
  }

  override generate(request: GenerateRequest) {
    this.requests.push(request);
    return super.generate(request);
  }

  /** The newest. */
  get request(): GenerateRequest {
    const request = this.requests.at(-1);
    if (request === undefined) throw new Error('nothing was asked');
    return request;
  }
}
