// Builds the images of docker/ with docker, podman or buildah, whichever is there (or --engine NAME), as
// lorax-js:cpu and lorax-js:cuda, and with the version in front, as the chart asks for them. What is after
// `--` goes to the engine: other base images, a platform. A docker that is only a client is passed over.
//     node scripts/build-images.mjs [cpu] [cuda] [--name lorax-js] [-- --build-arg RUNTIME_IMAGE=...]
// Node built-ins only.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const IMAGES = ['cpu', 'cuda'];

/** How each is asked whether it can build, and told to; HEALTHCHECK is in Docker's image format alone. */
const ENGINES = {
  docker: { probe: ['info'], build: ['build'] },
  podman: { probe: ['info'], build: ['build', '--format', 'docker'] },
  buildah: { probe: ['info'], build: ['build', '--format', 'docker', '--layers'] },
};

const runs = (engine) =>
  spawnSync(engine, ENGINES[engine].probe, { stdio: 'ignore' }).status === 0;

function fail(message) {
  process.stderr.write(`build-images: ${message}\n`);
  process.exit(1);
}

const split = process.argv.indexOf('--');
const own = process.argv.slice(2, split < 0 ? undefined : split);
const forEngine = split < 0 ? [] : process.argv.slice(split + 1);
const { values, positionals } = parseArgs({
  args: own,
  allowPositionals: true,
  options: { engine: { type: 'string' }, name: { type: 'string', default: 'lorax-js' } },
});
const unknown = positionals.find((each) => !IMAGES.includes(each));
if (unknown !== undefined) fail(`there is no image ${unknown}: ${IMAGES.join(', ')}`);
if (values.engine !== undefined && !(values.engine in ENGINES)) {
  fail(`--engine is one of ${Object.keys(ENGINES).join(', ')}, not ${values.engine}`);
}
const candidates = values.engine === undefined ? Object.keys(ENGINES) : [values.engine];
const engine = candidates.find(runs);
if (engine === undefined) fail(`none of these can build here: ${candidates.join(', ')}`);

for (const image of positionals.length > 0 ? positionals : IMAGES) {
  const tag = `${values.name}:${image}`;
  const file = path.join(root, 'docker', `${image}.Dockerfile`);
  const tags = ['--tag', tag, '--tag', `${values.name}:${version}-${image}`];
  const args = [...ENGINES[engine].build, ...tags, '--file', file, ...forEngine, root];
  process.stdout.write(`build-images: ${engine} ${args.join(' ')}\n`);
  const { status } = spawnSync(engine, args, { stdio: 'inherit' });
  if (status !== 0) fail(`${tag} was not built`);
  process.stdout.write(`build-images: built ${tag}\n`);
}
