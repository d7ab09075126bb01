// A process that does nothing but look at the clock: its event-loop delay is what the machine's load alone
// makes of one. The control of server-load.mjs, which runs it beside the server.
import { monitorEventLoopDelay } from 'node:perf_hooks';

const delay = monitorEventLoopDelay({ resolution: 1 });
process.on('message', (what) => {
  if (what === 'start') {
    delay.reset();
    delay.enable();
  } else {
    delay.disable();
    process.send({ p99: delay.percentile(99) / 1e6 - 1, max: delay.max / 1e6 - 1 });
  }
});
