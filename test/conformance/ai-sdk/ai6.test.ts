// The conformance suite of the language-model specification under ai 6.
import { describe } from 'vitest';
import { describeEcosystem } from './ecosystem-suite.js';
import { describeReasoning } from './reasoning-suite.js';
import { sdk6 } from './sdk.js';
import { describeShape } from './shape-suite.js';
import { describeSpec } from './spec-suite.js';
import { describeTools } from './tools-suite.js';

describe('the specification', () => describeSpec(sdk6));
describe('tools', () => describeTools(sdk6));
describe('reasoning', () => describeReasoning(sdk6));
describe('around a model', () => describeEcosystem(sdk6));
describe('the same shape as the mock', () => describeShape(sdk6));
