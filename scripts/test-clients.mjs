// The clients of other languages, unmodified, against a live server on the demo model: PyPI's `openai`
// and `lorax-client`, and the curl calls of vLLM's documentation (test/clients). They are installed once,
// in .cache/clients, at the versions of requirements.txt. The last line is exactly
// `N passed, N failed, N skipped`. Called by `npm test` (through test.mjs) and by hand.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = path.join(root, 'test', 'clients');
const cache = path.join(root, '.cache', 'clients');
const requirements = path.join(folder, 'requirements.txt');
const say = (line) => process.stdout.write(`${line}\n`);

/** The Python that has the clients; a reason where there is none to be had. */
function installed() {
  const bin = process.platform === 'win32' ? 'Scripts' : 'bin';
  const python = path.join(cache, 'venv', bin, 'python');
  const stamp = path.join(cache, '.stamp');
  const hash = createHash('sha256').update(fs.readFileSync(requirements)).digest('hex');
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === hash) return { python };
  fs.rmSync(cache, { recursive: true, force: true });
  fs.mkdirSync(cache, { recursive: true });
  const quiet = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check'];
  const steps = [
    ['python3', ['-m', 'venv', path.join(cache, 'venv')]],
    [python, [...quiet, '--requirement', requirements]],
  ];
  for (const [command, args] of steps) {
    const { status, error, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    if (status === 0) continue;
    const last = stderr?.trim().split('\n').at(-1);
    return { reason: `${command} ${args.slice(0, 3).join(' ')}: ${error?.message ?? last}` };
  }
  fs.writeFileSync(stamp, hash);
  return { python };
}

/** Tests in the suites, where they cannot be run. */
function numTests() {
  const files = fs.readdirSync(folder).filter((file) => /^test_.*\.py$/.test(file));
  const texts = files.map((file) => fs.readFileSync(path.join(folder, file), 'utf8'));
  return texts.join('\n').match(/^ {4}(?:async )?def test_/gm).length;
}

async function serving(work) {
  const server = spawn(process.execPath, [path.join(folder, 'serve.mjs')], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  try {
    const lines = readline.createInterface({ input: server.stdout });
    const url = await Promise.race([
      new Promise((resolve) => lines.once('line', resolve)),
      ended.then(() => undefined),
    ]);
    if (url === undefined) throw new Error('test/clients/serve.mjs ended before it served');
    return await work(url);
  } finally {
    server.stdin.end();
    await ended;
  }
}

/** The counts, and `ok`: false where something failed that no single test shows. */
export async function runClientTests() {
  const { python, reason } = installed();
  if (python === undefined) {
    const skipped = numTests();
    say(`test: clients: they cannot be installed here (${reason})`);
    say(`test: clients: nothing was run; skipped, and counted as such, ${skipped} tests`);
    // In CI they must have run.
    return { passed: 0, failed: 0, skipped, ok: !process.env.CI };
  }
  const report = path.join(cache, `report-${process.pid}.json`);
  const status = await serving(
    (url) =>
      new Promise((resolve, reject) => {
        const suite = spawn(python, [path.join(folder, 'run.py'), report], {
          cwd: folder,
          stdio: 'inherit',
          env: { ...process.env, LORAX_TEST_URL: url, PYTHONDONTWRITEBYTECODE: '1' },
        });
        suite.once('error', reject);
        suite.once('exit', resolve);
      }),
  );
  if (!fs.existsSync(report)) return { passed: 0, failed: 0, skipped: 0, ok: false };
  const counts = JSON.parse(fs.readFileSync(report, 'utf8'));
  fs.rmSync(report);
  return { ...counts, ok: status === 0 && counts.passed + counts.failed > 0 };
}

if (process.argv[1] && pathToFileURL(path.resolve(process.argv[1])).href === import.meta.url) {
  const { bootstrap } = await import('./bootstrap.mjs');
  await bootstrap();
  const { passed, failed, skipped, ok } = await runClientTests();
  process.exitCode = ok && failed === 0 ? 0 : 1;
  say(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}
