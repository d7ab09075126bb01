// One case of the real clock in a process of its own: an engine, its adapters, a trace. Forked by
// real-clock.mjs, which sends the task and gets what was measured.
import { createEngine } from '../../dist/engine.mjs'; // bench/ is a package of its own
import { inParallel } from '../gpu/make-adapters.mjs';
import { runTrace } from './client.mjs';

/** Adapters read and hashed at once. */
const REGISTERED_AT_ONCE = 16;

process.once('message', async (task) => {
  const answer = await run(task).then(
    (result) => ({ result }),
    (error) => ({ error: error.stack ?? String(error) }),
  );
  process.send(answer, () => process.disconnect());
});

async function run({ engineOptions, directories, trace }) {
  const engine = createEngine(engineOptions);
  try {
    const info = await engine.ready();
    const names = directories.map((_, i) => `adapter-${i}`);
    const begin = performance.now();
    await inParallel([...directories.entries()], REGISTERED_AT_ONCE, ([i, directory]) =>
      engine.adapters.add(names[i], directory),
    );
    const registerSeconds = (performance.now() - begin) / 1e3;
    await warmUp(engine);
    // 0 of those that are on disk alone.
    const images = (await engine.adapters.list()).map(({ bytes }) => bytes);
    const before = process.cpuUsage();
    const measured = await runTrace(engine, trace, names, info);
    const { user, system } = process.cpuUsage(before);
    return {
      ...measured,
      cpuSeconds: (user + system) / 1e6,
      info,
      adapterBytes: Math.max(...images),
      registerSeconds,
    };
  } finally {
    await engine.dispose();
  }
}

/** Of the base, so that no adapter is in the pool before the trace begins. */
async function warmUp(engine) {
  const one = async (i) => {
    const promptTokens = Array.from({ length: 64 + i }, (_, t) => 16 + ((t * 7 + i) % 97));
    const sampling = { maxOutputTokens: 16, temperature: 0, ignoreEos: true };
    for await (const _ of engine.generate({ promptTokens, sampling }));
  };
  await Promise.all(Array.from({ length: 8 }, (_, i) => one(i)));
}
