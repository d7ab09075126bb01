// What bundlers for browsers and edge runtimes get in place of lorax-js (package.json `exports`,
// conditions `browser` and `edge-light`). Importing it always throws, so that the mistake shows
// where it was made and not as a missing `node:worker_threads`.
throw new Error(
  'lorax-js needs the Node runtime: it runs a native engine in a worker thread. ' +
    'Import it from server code only (in Next.js: `export const runtime = "nodejs"`).',
);

export {};
