// The engine's state once a second, its newest steps, and what its counters grew by. Used by client.mjs.

const EVERY_MS = 1000;

export class EngineWatch {
  static async start(engine) {
    return new EngineWatch(engine, await engine.stats());
  }

  constructor(engine, stats) {
    this.engine = engine;
    this.before = stats.totals;
    this.seenSteps = stats.totals.steps;
    this.states = [];
    this.steps = [];
    this.begin = performance.now();
    this.reading = Promise.resolve();
    this.timer = setInterval(() => (this.reading = this.reading.then(() => this.read())), EVERY_MS);
  }

  async read() {
    const stats = await this.engine.stats();
    const { pages, requests, totals, recentSteps, host } = stats;
    const second = (performance.now() - this.begin) / 1e3;
    this.states.push({
      ...{ second, running: requests.running, waiting: requests.waiting },
      ...{ free: pages.free, kv: pages.kv, cold: pages.cold, adapter: pages.adapter },
      ...{ retiring: pages.retiring, adapterLoads: totals.adapterLoads - this.before.adapterLoads },
      ...(host === undefined ? {} : { hostBytes: host.bytes }),
    });
    // Of more than are kept the oldest are missed.
    const fresh = Math.min(totals.steps - this.seenSteps, recentSteps.length);
    if (fresh > 0) this.steps.push(...recentSteps.slice(-fresh));
    this.seenSteps = totals.steps;
    return stats;
  }

  async stop() {
    clearInterval(this.timer);
    await this.reading;
    const { totals, host } = await this.read();
    const grown = Object.entries(totals).map(([key, value]) => [key, value - this.before[key]]);
    return { states: this.states, steps: this.steps, totals: Object.fromEntries(grown), host };
  }
}
