/** All commands, in the order that help shows them. */
import type { Command } from './command-line.js';
import { bench } from './commands/bench.js';
import { build } from './commands/build.js';
import { chat } from './commands/chat.js';
import { doctor } from './commands/doctor.js';
import { estimate } from './commands/estimate.js';
import { inspect } from './commands/inspect.js';
import { ls } from './commands/ls.js';
import { pull } from './commands/pull.js';
import { serve } from './commands/serve.js';

export const COMMANDS: readonly Command[] = [
  ...[serve, chat, bench, pull, ls, inspect, estimate, doctor, build],
];
