// A Chromium for tests: `CHROMIUM`, else Debian's. Where there is none, CI on Debian installs it;
// elsewhere what needs one counts as skipped. Used by test-browsers.mjs.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';

const CHROMIUM = '/usr/bin/chromium';

function run(command, args) {
  const child = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (child.status === 0) return;
  const output = child.error?.message ?? `${child.stdout}${child.stderr}`;
  throw new Error(`\`${command} ${args.join(' ')}\` failed: ${output}`);
}

/** Its path, or undefined with the reason said. */
export function findChromium(say) {
  const present = [process.env.CHROMIUM, CHROMIUM].find((file) => file && fs.existsSync(file));
  if (present) return present;
  if (!process.env.CI || process.getuid?.() !== 0) {
    say(`skipped what needs a browser: there is no ${CHROMIUM} (Debian: apt install chromium)`);
    return undefined;
  }
  try {
    say('installing chromium ...');
    run('apt-get', ['update']);
    run('apt-get', ['install', '--yes', '--no-install-recommends', 'chromium']);
    return CHROMIUM;
  } catch (error) {
    say(`skipped what needs a browser: ${error.message}`);
    return undefined;
  }
}
