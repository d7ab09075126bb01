// The conformance suite of the language-model specification under ai 7.
import { describe } from 'vitest';
import { describeEcosystem } from './ecosystem-suite.js';
import { describeReasoning } from './reasoning-suite.js';
import { sdk7 } from './sdk.js';
import { describeShape } from './shape-suite.js';
import { describeSpec } from './spec-suite.js';
import { describeTools } from './tools-suite.js';

describe('the specification', () => describeSpec(sdk7));
describe('tools', () => describeTools(sdk7));
describe('reasoning', () => describeReasoning(sdk7));
describe('around a model', () => describeEcosystem(sdk7));
describe('the same shape as the mock', () => describeShape(sdk7));
