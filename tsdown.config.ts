// What is published: flat ESM and CJS entries in dist/, and one ESM-only dist/worker.mjs that is
// found beside them by a literal new URL('./worker.mjs', import.meta.url) (`shims` makes the same
// line work in CJS). devDependencies that are imported (the AI SDK's specification, the tokenizer) are
// bundled, with their licences beside them; dependencies stay external. The worker has none: whoever
// traces files for a deployment finds it by its URL, but not what it would import.
import { defineConfig } from 'tsdown';
import { bundledLicenses } from './scripts/bundled-licenses.mjs';
import { uiAssets } from './scripts/ui-assets.mjs';

const shared = {
  platform: 'node',
  target: 'node20.19',
  outDir: 'dist',
  shims: true,
  sourcemap: true,
  hash: false,
  fixedExtension: true,
  report: false,
  // Cleaning is scripts/bootstrap.mjs's job: these configurations share one directory.
  clean: false,
} as const;

export default defineConfig([
  {
    ...shared,
    entry: {
      index: 'src/index.ts',
      engine: 'src/engine.ts',
      ai6: 'src/ai6.ts',
      langchain: 'src/langchain.ts',
      server: 'src/server.ts',
      test: 'src/test.ts',
    },
    format: ['esm', 'cjs'],
    // The types of the AI SDK's specification are part of ours, so they are bundled as well; its
    // JSON schema types live in an @types package, which only TypeScript's resolver finds.
    dts: { sourcemap: false, resolver: 'tsc' },
    // Symbol.asyncDispose, for consumers whose `lib` has it not and who have no @types/node.
    banner: { dts: '/// <reference lib="esnext.disposable" />' },
    deps: { onlyBundle: false, alwaysBundle: ['json-schema'] },
    plugins: [bundledLicenses('LICENSES.txt')],
  },
  {
    // Apart from the others: a next.config is read in every build, and is to load none of them.
    ...shared,
    entry: { next: 'src/next.ts' },
    format: ['esm', 'cjs'],
    dts: { sourcemap: false, resolver: 'tsc' },
    deps: { onlyBundle: false },
  },
  {
    ...shared,
    entry: {
      worker: 'worker/main.ts',
      'node-only': 'src/node-only.ts',
    },
    format: ['esm'],
    dts: false,
    deps: { onlyBundle: false },
    plugins: [bundledLicenses('LICENSES.worker.txt')],
  },
  {
    // Apart from the worker: what both hold would become a file that the worker imports.
    ...shared,
    entry: { cli: 'src/cli/main.ts', 'engine-process': 'src/engine-process.ts' },
    format: ['esm'],
    dts: false,
    deps: { onlyBundle: false },
    plugins: [bundledLicenses('LICENSES.cli.txt')],
  },
  {
    // The dashboard: for browsers, which get it as it is (src/server/ui/page-files.ts).
    entry: { app: 'src/ui/main.ts' },
    outDir: 'dist/ui',
    platform: 'browser',
    target: 'es2022',
    format: ['esm'],
    outExtensions: () => ({ js: '.js' }),
    ...{ hash: false, report: false, clean: false, dts: false, minify: true },
    tsconfig: 'src/ui/tsconfig.json',
    deps: { onlyBundle: false, alwaysBundle: ['uplot'] },
    plugins: [bundledLicenses('LICENSES.txt'), uiAssets()],
  },
]);
