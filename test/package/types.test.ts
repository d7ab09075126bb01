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
import { createLorax, type LoraxProvider } from 'lorax-js';
import { createEngine } from 'lorax-js/engine';
import * as six from 'lorax-js/ai6';
import { withLorax } from 'lorax-js/next';
import * as fake from 'lorax-js/test';

export const lorax: LoraxProvider = createLorax({ model: './m' });
export const model = lorax('pirate');
export const entries = [createEngine({ model: './m' }), six.createLorax({ model: './m' }), fake];
export const config: { output: 'standalone' } = withLorax({ output: 'standalone' });
`;

let project: string;

beforeAll(async () => {
  project = await mkdtemp(path.join(tmpdir(), 'lorax-types-'));
  await mkdir(`${project}/node_modules`);
  await symlink(root, `${project}/node_modules/lorax-js`, 'junction');
  const files = {
    'package.json': '{ "type": "module" }',
    'main.ts': CONSUMER,
    'main.cts': CONSUMER,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(`${project}/${name}`, text);
});

afterAll(() => rm(project, { recursive: true, force: true }));

/** What tsc says; '' = all well. */
async function diagnose(compilerOptions: object): Promise<string> {
  const options = {
    ...{ module: 'NodeNext', moduleResolution: 'NodeNext', target: 'ES2022', strict: true },
    ...{ noEmit: true, skipLibCheck: false, preserveSymlinks: true },
    ...compilerOptions,
  };
  await writeFile(`${project}/tsconfig.json`, JSON.stringify({ compilerOptions: options }));
  const tsc = `${root}/node_modules/typescript/bin/tsc`;
  return run(process.execPath, [tsc, '-p', project]).then(
    () => '',
    (error: { stdout: string }) => error.stdout,
  );
}

test.each([
  ['no @types/node, lib ES2022 and DOM', { lib: ['ES2022', 'DOM'], types: [] }],
  ['@types/node', { lib: ['ES2022'], types: ['node'], typeRoots: [`${root}/node_modules/@types`] }],
])('compile with %s', { timeout: 60_000 }, async (_, options) => {
  expect(await diagnose(options)).toBe('');
});
