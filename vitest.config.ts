// Unit tests import src/ and worker/ directly; tests with a real worker import `lorax-js` by
// self-reference, which is dist/ as users get it (test/global-setup.ts has built it by then).
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const dist = (file: string) => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // test/smollm2 needs a fetched model: `npm run check:smollm2`. test/next, test/install and test/chart
    // need what scripts/test-browsers.mjs, test-package.mjs and check-chart.mjs have installed, test/dashboard
    // the browser that the first of them has looked for.
    exclude: [
      '**/node_modules/**',
      'test/native/**',
      ...(process.env.LORAX_TEST_SMOLLM2 ? [] : ['test/smollm2/**']),
      ...(process.env.LORAX_TEST_CHROMIUM === undefined ? ['test/dashboard/**'] : []),
      ...(process.env.LORAX_TEST_NEXT ? [] : ['test/next/**']),
      ...(process.env.LORAX_TEST_INSTALL ? [] : ['test/install/**']),
      ...(process.env.LORAX_TEST_CHART ? [] : ['test/chart/**']),
    ],
    globalSetup: ['test/global-setup.ts'],
    // Tests with worker threads and process exits of their own need real processes.
    pool: 'forks',
    testTimeout: 30_000,
    // What is polled for comes when it comes: on a busy machine not within the default of a second.
    expect: { poll: { timeout: 15_000 } },
    hookTimeout: 60_000,
    server: { deps: { external: [/\/dist\/[^/]+\.[mc]js$/] } },
  },
  resolve: {
    alias: [
      { find: /^lorax-js$/, replacement: dist('index.mjs') },
      { find: /^lorax-js\/(engine|ai6|langchain|next|server|test)$/, replacement: dist('$1.mjs') },
    ],
  },
});
