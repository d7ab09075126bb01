/**
 * `npm pack`, installed into empty projects of every kind that users have; each gives one answer of
 * the demo model. Run by scripts/test-package.mjs.
 */
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NextServer } from '../next/next-server.js';
import { pathWithoutCompilers, Project, sourceTarball, work } from './project.js';

const QUESTION = 'Where is my order 4821?';
const BASE = 'Your order 4821 is on its way and arrives on Tuesday.';
const PIRATE = "Arr, yer order 4821 be sailin' to ye";

const MINUTES = 60_000;

/** How large and how slow: printed by the script. */
const figures: Record<string, string> = {};
afterAll(() => writeFileSync(path.join(work, 'figures.json'), JSON.stringify(figures)));

/** The text in a stream of UI messages. */
function textOf(body: string): string {
  const deltas = [...body.matchAll(/^data: (\{"type":"text-delta".*)$/gm)];
  return deltas.map(([, json]) => (JSON.parse(json as string) as { delta: string }).delta).join('');
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

describe('an ESM project with the AI SDK', () => {
  let project: Project;

  beforeAll(async () => {
    project = await Project.install('esm', {
      manifest: { type: 'module' },
      packages: ['ai', 'zod'],
      files: {
        'main.js': `
import { generateText } from 'ai';
import { createLorax } from 'lorax-js';
const model = 'node_modules/lorax-js/models/demo';
const lorax = createLorax({ model, adapters: { pirate: \`\${model}/adapters/pirate\` } });
const { text } = await generateText({ model: lorax('pirate'), prompt: '${QUESTION}' });
console.log(text);
`,
        'device.js': `
import { createEngine } from 'lorax-js/engine';
const engine = createEngine({ model: 'node_modules/lorax-js/models/demo' });
console.log((await engine.ready()).deviceDescription);
`,
        'both.js': `
import { createRequire } from 'node:module';
import { generateText } from 'ai';
import { createLorax } from 'lorax-js';
const required = createRequire(import.meta.url)('lorax-js');
const options = { model: 'node_modules/lorax-js/models/demo' };
const both = [createLorax(options), required.createLorax(options)];
for (const lorax of both) await generateText({ model: lorax(), prompt: '${QUESTION}' });
const stats = await Promise.all(both.map((lorax) => lorax.stats()));
const { workers } = process.report.getReport();
console.log(JSON.stringify({
  different: required.createLorax !== createLorax,
  finished: stats.map(({ totals }) => totals.finished),
  threads: workers.length,
}));
`,
      },
    });
  }, 3 * MINUTES);

  test('answers', async () => {
    expect(await project.node('main.js')).toContain(PIRATE);
  });

  test('import and require, loaded side by side, share one engine', async () => {
    expect(JSON.parse(await project.node('both.js'))).toEqual({
      different: true,
      finished: [2, 2],
      threads: 1,
    });
  });

  test("nothing was compiled: the platform's package was used", async () => {
    expect(existsSync(project.file('node_modules/lorax-js/build'))).toBe(false);
    const platform = `${process.platform}-${process.arch}`;
    const manifest = JSON.parse(
      readFileSync(project.file('node_modules/lorax-js/package.json'), 'utf8'),
    ) as { version: string; optionalDependencies: Record<string, string> };
    expect(manifest.optionalDependencies).toEqual({ [`@lorax-js/${platform}`]: manifest.version });
    // Where a CUDA backend was packed, what is missing for it is the machine's.
    const plugin = `node_modules/@lorax-js/${platform}-cuda/lorax_cuda.so`;
    const device = await project.node('device.js');
    expect(device.includes('lorax_cuda.so) is not built'), device).toBe(
      process.platform === 'linux' && !existsSync(project.file(plugin)),
    );
  });
});

describe('a CommonJS project with nothing but lorax-js', () => {
  let project: Project;

  beforeAll(async () => {
    project = await Project.install('cjs', {
      // Whatever would be compiled could not be.
      env: { PATH: pathWithoutCompilers(), CXX: '' },
      files: {
        'main.js': `
const { createEngine } = require('lorax-js/engine');
(async () => {
  const engine = createEngine({ model: 'node_modules/lorax-js/models/demo' });
  let text = '';
  const messages = [{ role: 'user', content: '${QUESTION}' }];
  for await (const event of engine.generate({ messages })) text += event.text ?? '';
  await engine.dispose();
  console.log(text);
})();
`,
        'cost.js': `
const [how, specifier] = process.argv.slice(2);
(async () => {
  const listeners = () => process.eventNames().flatMap((name) => process.listeners(name)).length;
  const before = listeners();
  const start = performance.now();
  if (how === 'import') await import(specifier);
  else require(specifier);
  const ms = performance.now() - start;
  const { sharedObjects, workers } = process.report.getReport();
  const native = sharedObjects.filter((file) => file.includes('lorax'));
  console.log(JSON.stringify({ ms, native, threads: workers.length, listeners: listeners() - before }));
})();
`,
      },
    });
    figures['install size'] =
      `${megabytes(project.sizeOf('node_modules'))}, of which lorax-js ` +
      megabytes(project.sizeOf('node_modules/lorax-js'));
  }, 3 * MINUTES);

  test('answers, though there was no compiler', async () => {
    expect(existsSync(project.file('node_modules/lorax-js/build'))).toBe(false);
    expect(await project.node('main.js')).toContain(BASE);
  });

  test.each(['lorax-js', 'lorax-js/engine', 'lorax-js/ai6', 'lorax-js/next', 'lorax-js/test'])(
    'to load %s loads no native code, starts no thread and listens to no signal',
    async (specifier) => {
      for (const how of ['import', 'require']) {
        const times: number[] = [];
        for (let i = 0; i < 3; i++) {
          const { ms, ...rest } = JSON.parse(await project.node('cost.js', how, specifier));
          expect(rest).toEqual({ native: [], threads: 0, listeners: 0 });
          times.push(ms);
        }
        const median = times.toSorted((a, b) => a - b)[1] as number;
        figures[`${how} ${specifier}`] = `${median.toFixed(0)} ms`;
      }
    },
  );
});

describe('a TypeScript project', () => {
  let project: Project;

  beforeAll(async () => {
    project = await Project.install('typescript', {
      manifest: { type: 'module' },
      packages: ['ai', 'zod', 'typescript', '@types/node'],
      files: {
        'main.ts': `
import { generateText } from 'ai';
import { createLorax, type LoraxProvider } from 'lorax-js';
import type { Engine } from 'lorax-js/engine';
import type { LoraxProvider as LoraxProvider6 } from 'lorax-js/ai6';
import { withLorax } from 'lorax-js/next';
import { createFakeLorax } from 'lorax-js/test';

const model: string = 'node_modules/lorax-js/models/demo';
const lorax: LoraxProvider<'json'> = createLorax({
  model,
  adapters: { json: \`\${model}/adapters/json\` },
});
export const engine: Engine = lorax.engine;
export const others = [withLorax({ output: 'standalone' as const }), createFakeLorax];
export type Six = LoraxProvider6;
// @ts-expect-error a model is asked for
export const wrong = () => createLorax({});
const { text } = await generateText({ model: lorax('json'), prompt: '${QUESTION}' });
console.log(text);
`,
      },
    });
  }, 3 * MINUTES);

  test.each([
    ['node16', 'node16'],
    ['esnext', 'bundler'],
  ])(
    'compiles as module %s, resolved as by %s, and answers',
    async (module, moduleResolution) => {
      const outDir = `out-${moduleResolution}`;
      const options = { module, moduleResolution, target: 'es2022', outDir };
      const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
      await project.node(
        'node_modules/typescript/bin/tsc',
        ...['--strict', '--skipLibCheck'],
        ...flags,
        'main.ts',
      );
      const answer: unknown = JSON.parse(await project.node(`${outDir}/main.js`));
      expect(answer).toMatchObject({ intent: 'order_status', order: '4821' });
    },
    2 * MINUTES,
  );
});

describe('a bundled Next app: Next 15 and webpack', () => {
  let project: Project;
  let server: NextServer | undefined;

  beforeAll(async () => {
    project = await Project.install('next', {
      packages: ['next@15.5.29', 'react@19.2.9', 'react-dom@19.2.9', 'ai', 'zod'],
      files: {
        'next.config.mjs': `
import { withLorax } from 'lorax-js/next';
export default withLorax(async () => ({ output: 'standalone' }));
`,
        'app/layout.js': `
export default ({ children }) => <html lang="en"><body>{children}</body></html>;
`,
        'app/page.js': `
export default () => <p>Up</p>;
`,
        'app/answer/route.js': `
import { streamText } from 'ai';
import { lorax } from 'lorax-js';
export async function POST(request) {
  const result = streamText({ model: lorax('pirate'), prompt: await request.text() });
  return result.toUIMessageStreamResponse();
}
`,
      },
    });
  }, 5 * MINUTES);
  afterAll(() => server?.kill());

  test(
    'is built, runs elsewhere and answers',
    async () => {
      await project.run(process.execPath, ['node_modules/next/dist/bin/next', 'build'], {
        NEXT_TELEMETRY_DISABLED: '1',
        LORAX_MODEL: '/no/such/model',
      });
      const deployed = path.join(work, 'next-deployed');
      cpSync(project.file('.next/standalone'), deployed, {
        recursive: true,
        verbatimSymlinks: true,
      });
      const demo = project.file('node_modules/lorax-js/models/demo');
      const env = { LORAX_MODEL: demo, LORAX_ADAPTERS: `${demo}/adapters` };
      server = await NextServer.start({ cwd: deployed, args: ['server.js'], env });
      const response = await fetch(`${server.url}/answer`, { method: 'POST', body: QUESTION });
      expect(textOf(await response.text())).toContain(PIRATE);
      expect(await server.terminate()).not.toBeNull();
    },
    4 * MINUTES,
  );
});

describe('a platform without a package', () => {
  test(
    'builds from source when it is installed, and answers',
    async () => {
      const project = await Project.install('source', {
        from: [sourceTarball],
        manifest: { type: 'module' },
        files: {
          'main.js': `
import { createEngine } from 'lorax-js/engine';
const engine = createEngine({ model: 'node_modules/lorax-js/models/demo' });
let text = '';
for await (const event of engine.generate({ messages: [{ role: 'user', content: '${QUESTION}' }] }))
  text += event.text ?? '';
console.log(text);
`,
        },
      });
      expect(existsSync(project.file('node_modules/@lorax-js'))).toBe(false);
      expect(existsSync(project.file('node_modules/lorax-js/build/Release/lorax.node'))).toBe(true);
      expect(await project.node('main.js')).toContain(BASE);
    },
    16 * MINUTES,
  );
});
