// The peers' side of the benchmark's lines: one JSON command a line on stdin, one JSON answer a line
// on stdout, in order, until stdin ends. A failed command answers {"error": ...}; the peer goes on.
// Commands and answers: peers/README.md; the driver's side is peer.mjs.

import { createInterface } from 'node:readline';

/**
 * @param {string} ready  what the peer is: the first line
 * @param {Record<string, (command: any) => Promise<object>>} cases  by the command's `case`
 */
export async function answerCommands(ready, cases) {
  reply({ ready });
  for await (const line of createInterface({ input: process.stdin })) {
    reply(await answer(JSON.parse(line), cases));
  }
}

async function answer(command, cases) {
  try {
    const run = cases[command.case];
    if (!run) throw new Error(`case ${command.case}: choose one of ${Object.keys(cases)}`);
    return await run(command);
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
}

function reply(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}
