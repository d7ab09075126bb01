// The declarations as a consumer's compiler sees them: all of them checked (no skipLibCheck), in a
// project that has neither @types/node nor a `lib` beyond ES2022.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

const CONSUMER = `
import { createLorax, type LoraxAdapters, type LoraxProvider } from 'lorax-js';
import { createEngine } from 'lorax-js/engine';
import * as six from 'lorax-js/ai6';
import * as fake from 'lorax-js/test';

export const lorax: LoraxProvider = createLorax({ model: './m' });
export const model = lorax('pirate');
declare module 'lorax-js' {
  interface LoraxAdapters { parrot: true }
}
export const known: keyof LoraxAdapters = 'parrot';
// @ts-expect-error: an app that names its adapters knows of slips
export const slip: keyof LoraxAdapters = 'parott';
export const entries = [createEngine({ model: './m' }), six.createLorax({ model: './m' }), fake];
`;

const LANGCHAIN_CONSUMER = `
import { HumanMessage } from '@langchain/core/messages';
import { ChatLorax, LoraxEmbeddings, LoraxLLM, type ChatLoraxFields } from 'lorax-js/langchain';

const fields: ChatLoraxFields = { model: './m', adapter: 'pirate', maxTokens: 9 };
export const others = [new LoraxLLM({ model: './m' }), new LoraxEmbeddings({ model: './m' })];
export const chat = new ChatLorax(fields);
export const answer: Promise<string> = chat.invoke([new HumanMessage('hi')]).then((m) => m.text);
`;

let project: string;

beforeAll(async () => {
  project = await mkdtemp(path.join(tmpdir(), 'lorax-types-'));
  await mkdir(`${project}/node_modules`);
  await mkdir(`${project}/langchain`);
  await symlink(root, `${project}/node_modules/lorax-js`, 'junction');
  const scope = '@langchain';
  await symlink(`${root}/node_modules/${scope}`, `${project}/node_modules/${scope}`, 'junction');
  const files = {
    'package.json': '{ "type": "module" }',
    'main.ts': CONSUMER,
    'main.cts': CONSUMER,
    'langchain/main.ts': LANGCHAIN_CONSUMER,
    'langchain/main.cts': LANGCHAIN_CONSUMER,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(`${project}/${name}`, text);
});

afterAll(() => rm(project, { recursive: true, force: true }));

/** What tsc says; '' = all well. */
async function diagnose(compilerOptions: object, include = '*'): Promise<string> {
  const options = {
    ...{ module: 'NodeNext', moduleResolution: 'NodeNext', target: 'ES2022', strict: true },
    ...{ noEmit: true, skipLibCheck: false, preserveSymlinks: true },
    ...compilerOptions,
  };
  await writeFile(
    `${project}/tsconfig.json`,
    JSON.stringify({ compilerOptions: options, include: [include] }),
  );
  const tsc = `${root}/node_modules/typescript/bin/tsc`;
  return run(process.execPath, [tsc, '-p', project]).then(
    () => '',
    (error: { stdout: string }) => error.stdout,
  );
}

test.each([
  ['no @types/node, lib ES2022 and DOM', { lib: ['ES2022', 'DOM'], types: [] }],
  ['@types/node', { lib: ['ES2022'], types: ['node'], typeRoots: [`${root}/node_modules/@types`] }],
])('compile with %s', { timeout: 180_000 }, async (_, options) => {
  expect(await diagnose(options)).toBe('');
});

// LangChain's own declarations are not ours to check.
test('compile for LangChain', { timeout: 180_000 }, async () => {
  const options = { lib: ['ES2022', 'DOM'], types: ['node'], skipLibCheck: true };
  const typeRoots = [`${root}/node_modules/@types`];
  expect(await diagnose({ ...options, typeRoots }, 'langchain/*')).toBe('');
});
