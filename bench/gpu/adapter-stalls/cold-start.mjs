// From a request to its first token, by where its adapter is. One request at a time, cold and warm in turn.
// Used by adapter-stalls.mjs.
import { dropFromCache, readOnce, registerAnew, weightsOf } from './files.mjs';
import { counting, median, timeToFirst } from './streams.mjs';

const PROMPT = 32;
/** The first steps of a shape are not counted. */
const WARM_UP = 3;
/** For each sample wanted, before it is said that they cannot be had. */
const ATTEMPTS = 4;

/** Each is registered anew before its turn, which leaves it in host memory alone; then it is warm. */
export async function coldStartFromHost(engine, { say, note, samples, host: adapters }) {
  const taken = await inTurns(adapters, samples, 'was in host memory alone', async (adapter) => {
    await registerAnew(engine, [adapter]);
    const first = () => timeToFirst(engine, adapter.name, PROMPT);
    const host = await counting(engine, first);
    const pool = await counting(engine, first);
    return host.loads === 1 && host.reads === 0 && pool.hits === 1 ? { host, pool } : undefined;
  });
  noteAll(note, taken);
  const [host, pool] = ['host', 'pool'].map((kind) => median(taken.map((one) => one[kind].result)));
  say(
    `COLD-START from host memory ${host.toFixed(2)} ms, warm ${pool.toFixed(2)} ms: ` +
      `${(host - pool).toFixed(2)} ms more (bar 3 ms), medians of ${samples}`,
  );
}

/**
 * `again`: all are registered and host memory holds a few, so that each is on disk alone when its turn comes.
 * Otherwise each is registered in its turn: read, hashed and packed, as the first time.
 */
export async function coldStartFromDisk(engine, { say, note, samples, disk, again }) {
  if (again) for (const { name, folder } of disk) await engine.adapters.add(name, folder);
  const taken = await inTurns(disk, samples, 'was read from disk', async ({ name, folder }) => {
    const file = { result: readOnce(weightsOf(folder)) };
    dropFromCache(weightsOf(folder));
    const first = await counting(engine, async () => {
      const begin = performance.now();
      if (!again) await engine.adapters.add(name, folder);
      const added = performance.now() - begin;
      return added + (await timeToFirst(engine, name, PROMPT));
    });
    if (!again) await engine.adapters.remove(name);
    if (first.loads !== 1 || (again && first.reads !== 1)) return undefined;
    return again ? { disk: first, file } : { 'disk-first': first, file };
  });
  noteAll(note, taken);
  const first = median(taken.map((one) => (one.disk ?? one['disk-first']).result));
  const file = median(taken.map((one) => one.file.result));
  say(
    `COLD-START from disk${again ? '' : ', a first load,'} ${first.toFixed(2)} ms, reading the file ` +
      `${file.toFixed(2)} ms: ${(first / file).toFixed(3)}x (bar 1.3x), medians of ${samples}`,
  );
}

/** What `take` gives of one adapter after another, round and round, until there are so many samples. */
async function inTurns(adapters, samples, what, take) {
  const taken = [];
  for (let turn = 0; taken.length < samples; turn++) {
    if (turn === WARM_UP + ATTEMPTS * samples) {
      throw new Error(
        `of ${turn - WARM_UP} requests, the adapter of ${taken.length} alone ${what}`,
      );
    }
    const one = await take(adapters[turn % adapters.length]);
    if (one !== undefined && turn >= WARM_UP) taken.push(one);
  }
  return taken;
}

function noteAll(note, taken) {
  for (const [i, kinds] of taken.entries()) {
    for (const [kind, { result, loads, reads }] of Object.entries(kinds)) {
      note('first-token', i + 1, kind, result, loads, reads);
    }
  }
}
