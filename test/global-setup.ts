// Runs once before vitest's first test: dist/ must be what the sources say, since tests with a
// worker import the built package. Skipped in milliseconds when the sources' hash matches.
import { buildJavaScript } from '../scripts/bootstrap.mjs';

export default async function setup(): Promise<void> {
  await buildJavaScript();
}
