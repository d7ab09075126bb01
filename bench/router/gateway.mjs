// Envoy and the endpoint picker as processes: a request comes to Envoy, which asks the picker over ext_proc
// and sends it where the picker says, in `x-gateway-destination-endpoint`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { envoyConfig } from './envoy-config.mjs';
import { serveKubernetesApi } from './kubernetes-api.mjs';

const POOL = 'lorax';

/** A port that nobody listens at just now, on all of `addresses`. */
export async function freePort(addresses = ['127.0.0.1']) {
  for (;;) {
    const first = createServer().listen(0, addresses[0]);
    await once(first, 'listening');
    const { port } = first.address();
    const others = addresses.slice(1).map((address) => createServer().listen(port, address));
    const all = await Promise.allSettled(others.map((server) => once(server, 'listening')));
    for (const server of [first, ...others]) server.close();
    if (all.every(({ status }) => status === 'fulfilled')) return port;
  }
}

/** A program whose output is kept; `stop` ends it and waits until it has ended. */
function start(command, args, env) {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const lines = [];
  let rest = '';
  const take = (chunk) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop();
    lines.push(...parts);
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const ended = once(child, 'close');
  return {
    lines,
    child,
    async stop() {
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(late);
    },
  };
}

/**
 * Resolves when the picker has all replicas and Envoy forwards. `config` is the picker's own
 * EndpointPickerConfig; `folder` is for the files that the programs are started with.
 */
export async function startGateway({ programs, folder, addresses, port, config }) {
  const unknown = new Set();
  const api = await serveKubernetesApi({ addresses, port, poolName: POOL }, (pathname) =>
    unknown.add(pathname),
  );
  const ports = { grpc: await freePort(), health: await freePort(), metrics: await freePort() };
  const listen = await freePort();
  const file = (name, document) => {
    writeFileSync(path.join(folder, name), JSON.stringify(document));
    return path.join(folder, name);
  };
  const cluster = { name: 'c', cluster: { server: api.url } };
  const context = { name: 'c', context: { cluster: 'c', user: 'c' } };
  const kubeconfig = file('kubeconfig.json', {
    ...{ apiVersion: 'v1', kind: 'Config', clusters: [cluster], contexts: [context] },
    ...{ users: [{ name: 'c', user: {} }], 'current-context': 'c' },
  });
  const picker = start(
    programs.picker,
    [
      ...['--pool-name', POOL, '--pool-namespace', 'default'],
      ...['--config-file', file('picker.json', config), '--zap-encoder', 'json'],
      ...['--grpc-port', ports.grpc, '--grpc-health-port', ports.health],
      ...['--metrics-port', ports.metrics, '--metrics-endpoint-auth=false'],
      ...['--secure-serving=false', '--tracing=false', '--enable-pprof=false'],
    ].map(String),
    { ...process.env, KUBECONFIG: kubeconfig },
  );
  const envoy = start(
    programs.envoy,
    [
      ...['-c', file('envoy.json', envoyConfig({ listen, picker: ports.grpc }))],
      ...['--log-level', 'warning', '--concurrency', '1', '--disable-hot-restart'],
    ],
    process.env,
  );
  let numSaid = 0;
  const gateway = {
    url: `http://127.0.0.1:${listen}`,
    /** What the programs had to say of errors: Envoy, since all was ready. */
    complaints() {
      const errors = picker.lines.filter((line) => /"level":"error"/.test(line));
      const asked = [...unknown].map((pathname) => `no such thing in the cluster: ${pathname}`);
      return [...asked, ...errors, ...envoy.lines.slice(numSaid)];
    },
    async stop() {
      await Promise.all([picker.stop(), envoy.stop()]);
      api.close();
    },
  };
  const isReady = async () => {
    const metrics = await fetch(`http://127.0.0.1:${ports.metrics}/metrics`);
    const count = /^inference_pool_ready_pods\{[^}]*\} (\d+)$/m.exec(await metrics.text())?.[1];
    if (Number(count) !== addresses.length) return false;
    return (await fetch(`${gateway.url}/v1/models`)).status === 200;
  };
  for (let left = 150; !(await isReady().catch(() => false)); left--) {
    const ended = [picker, envoy].some(({ child }) => child.exitCode !== null);
    if (left > 0 && !ended) {
      await sleep(200);
      continue;
    }
    await gateway.stop();
    const said = [...picker.lines.slice(-15), ...envoy.lines.slice(-15)].join('\n');
    throw new Error(`the gateway does not get ready:\n${said}`);
  }
  numSaid = envoy.lines.length;
  return gateway;
}
