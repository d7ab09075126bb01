// The Helm chart beside what it is about: the server's routes, settings and metrics, and the images.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { startServer, type RunningServer } from 'lorax-js/server';
import { CONFIG_NAMES, loadConfigFile } from '../../src/cli/serve/config-file.js';
import { resolveConfig } from '../../src/cli/serve/resolve-config.js';
import { SETTING_KEYS, variableOf } from '../../src/cli/serve/settings.js';
import { hubSettings, hubToken, ownCache } from '../../worker/sources/hub-environment.js';
import { parseMetrics, readEndpoint } from '../e2e/ops/model-server-protocol.js';
import { demo } from '../e2e/ops/serve-process.js';
import { root } from '../cli/run-cli.js';
import {
  chart,
  helm,
  kubeconform,
  only,
  render,
  run,
  schemas,
  template,
  valueFiles,
  type Resource,
} from './rendered-chart.js';

const read = (...names: string[]) => readFileSync(path.join(root, ...names), 'utf8');
const values = (name: string) => path.join(chart, 'ci', `${name}-values.yaml`);
const containerOf = (set: Resource) => set.spec.template.spec.containers[0];
const podLabelsOf = (set: Resource) => set.spec.template.metadata.labels as Record<string, string>;

/** Its variables; of a Secret's, what it would be. */
function environmentOf(set: Resource): Record<string, string> {
  const variables = containerOf(set).env as { name: string; value?: string }[];
  return Object.fromEntries(variables.map(({ name, value }) => [name, value ?? `secret-${name}`]));
}

function selects(selector: Record<string, string>, labels: Record<string, string>): boolean {
  return Object.entries(selector).every(([key, value]) => labels[key] === value);
}

describe.skipIf(helm === '')('the chart', () => {
  const scratch = mkdtempSync(path.join(tmpdir(), 'lorax-chart-'));
  let server: RunningServer;
  beforeAll(async () => {
    const settings = { model: demo, device: 'cpu', port: 0, logLevel: 'silent' } as const;
    server = await startServer({ ...settings, adminKey: 'an-admin-key-of-the-test' });
    await server.loaded;
  });
  afterAll(async () => {
    await server?.close(0);
    rmSync(scratch, { recursive: true, force: true });
  });

  describe.each(valueFiles.map((file) => [path.basename(file), file]))('%s', (name, file) => {
    let resources: Resource[];
    let set: Resource;
    beforeAll(() => {
      resources = render(file);
      set = only(resources, 'StatefulSet');
    });

    test('is linted without a warning', () => {
      const { status, text } = run(helm, ['lint', '--strict', chart, '-f', file]);
      expect(status, text).toBe(0);
      expect(text).not.toContain('[WARNING]');
    });

    test.skipIf(kubeconform === '' || schemas === '')('is what the schemas want, strictly', () => {
      const args = ['-strict', '-output', 'json', '-verbose', '-schema-location', schemas];
      const { status, stdout } = run(kubeconform, args, template(file));
      expect(status, stdout).toBe(0);
      const found = (JSON.parse(stdout) as { resources: { status: string }[] }).resources;
      expect(found.length).toBe(resources.length);
      expect(found.filter((each) => each.status !== 'statusValid')).toEqual([]);
    });

    test('probes ask for routes that the server has', async () => {
      const { startupProbe, readinessProbe, livenessProbe, ports } = containerOf(set);
      const probes = [startupProbe, readinessProbe, livenessProbe];
      expect(probes.map(({ httpGet }) => httpGet.path)).toEqual(['/ready', '/ready', '/health']);
      for (const { httpGet } of probes) {
        expect(ports.map((port: { name: string }) => port.name)).toContain(httpGet.port);
        expect((await fetch(`${server.url}${httpGet.path}`)).status).toBe(200);
      }
    });

    test('variables are settings of `serve`, or say where what is fetched lies', async () => {
      const environment = environmentOf(set);
      const own = Object.keys(environment).filter((each) => each.startsWith('LORAX_'));
      const known = SETTING_KEYS.map(variableOf);
      expect(own.length).toBeGreaterThan(0);
      expect(own.filter((each) => !known.includes(each))).toEqual([]);
      const mounts = containerOf(set).volumeMounts as { name: string; mountPath: string }[];
      const cache = mounts.find((mount) => mount.name === 'cache')?.mountPath as string;
      for (const folder of [hubSettings({}, environment).cache, ownCache(environment)]) {
        expect(path.relative(cache, folder)).not.toMatch(/^\.\.|^$/);
      }
      if (environment.HF_TOKEN !== undefined) {
        expect(await hubToken(environment)).toBe(environment.HF_TOKEN);
      }
    });

    test('`serve` takes its file for what the values say', async () => {
      const { data } = only(resources, 'ConfigMap');
      const [[configName, content]] = Object.entries(data) as [[string, string]];
      const mount = containerOf(set).volumeMounts.find(
        (each: { name: string }) => each.name === 'config',
      );
      const [, workdir] =
        /^WORKDIR (\S+)\n(?!.*^WORKDIR)/ms.exec(read('docker/cpu.Dockerfile')) ?? [];
      expect(CONFIG_NAMES).toContain(configName);
      expect(mount.mountPath).toBe(`${workdir}/${configName}`);
      const config = path.join(scratch, `${name}.mjs`);
      writeFileSync(config, content);
      const resolved = resolveConfig({}, environmentOf(set), await loadConfigFile(config, scratch));
      const wanted = (parse(readFileSync(file, 'utf8')) as { config: object }).config;
      expect(resolved.config).toMatchObject(wanted);
      expect(resolved.config).toMatchObject({ host: '0.0.0.0', port: 8000 });
    });

    test('what is under way ends before the pod is killed', () => {
      const { terminationGracePeriodSeconds } = set.spec.template.spec;
      const [, sleep] = containerOf(set).lifecycle.preStop.exec.command;
      const { graceMs = 30_000 } = (
        parse(readFileSync(file, 'utf8')) as { config: { graceMs?: number } }
      ).config;
      expect(terminationGracePeriodSeconds * 1000).toBeGreaterThan(Number(sleep) * 1000 + graceMs);
    });

    test('every selector finds the pods, and not the test’s', () => {
      const labels = podLabelsOf(set);
      const testPod = only(resources, 'Pod').metadata.labels;
      const selectors = resources
        .filter(({ kind }) => kind !== 'ServiceMonitor')
        .map(({ kind, spec }) => (kind === 'NetworkPolicy' ? spec.podSelector : spec?.selector))
        .filter((selector) => selector !== undefined)
        .map((selector) => (selector.matchLabels ?? selector) as Record<string, string>);
      expect(selectors.length).toBeGreaterThanOrEqual(4);
      for (const selector of selectors) {
        expect(selects(selector, labels)).toBe(true);
        expect(selects(selector, testPod)).toBe(false);
      }
    });

    test('pods have no rights they do not need, and write to volumes alone', () => {
      for (const pod of [set.spec.template.spec, only(resources, 'Pod').spec]) {
        expect(pod.automountServiceAccountToken).toBe(false);
        expect(pod.securityContext).toMatchObject({
          ...{ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
        });
        expect(pod.containers[0].securityContext).toEqual({
          ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
          capabilities: { drop: ['ALL'] },
        });
      }
      const { volumeMounts } = containerOf(set);
      const mounts = volumeMounts.map((mount: { mountPath: string }) => mount.mountPath);
      expect(mounts).toEqual(expect.arrayContaining(['/cache', '/tmp']));
    });
  });

  test('nothing needs custom resources unless it is asked for', () => {
    const groups = new Set(render(values('cpu')).map(({ apiVersion }) => apiVersion));
    expect([...groups].sort()).toEqual(['apps/v1', 'policy/v1', 'v1']);
    const all = render(values('all')).map(({ kind }) => kind);
    const asked = ['HTTPRoute', 'InferencePool', 'ServiceMonitor', 'HorizontalPodAutoscaler'];
    expect(all).toEqual(expect.arrayContaining(asked));
  });

  test('metrics are those of /metrics, and reached as the server wants it', async () => {
    const all = render(values('all'));
    const scrape = (headers = {}) => fetch(`${server.url}/metrics`, { headers });
    const [endpoint] = only(all, 'ServiceMonitor').spec.endpoints;
    expect(endpoint.path).toBe('/metrics');
    // This server has a key, that of the values leaves metrics open.
    expect((await scrape()).status).toBe(401);
    expect(endpoint.authorization).toBeUndefined();
    const guarded = render(
      values('all'),
      '--set',
      'config.metrics=admin,inferencePool.enabled=false',
    );
    const { authorization } = only(guarded, 'ServiceMonitor').spec.endpoints[0];
    const secret = only(guarded, 'Secret');
    expect(authorization.credentials.name).toBe(secret.metadata.name);
    expect(secret.stringData).toHaveProperty(authorization.credentials.key);
    const answer = await scrape({
      authorization: `${authorization.type} an-admin-key-of-the-test`,
    });
    expect(answer.status).toBe(200);
    const text = await answer.text();
    const [{ pods }] = only(all, 'HorizontalPodAutoscaler').spec.metrics;
    expect(parseMetrics(text).get(pods.metric.name)?.type).toBe('gauge');
    // What an endpoint picker reads without being told of names; throws where something is missing.
    expect(readEndpoint(text).waitingQueueSize).toBe(0);
  });

  test('the monitor finds the pods’ Service, by the port’s name, and no other', () => {
    const all = render(values('all'));
    const { selector, endpoints } = only(all, 'ServiceMonitor').spec;
    const found = all.filter(
      ({ kind, metadata }) => kind === 'Service' && selects(selector.matchLabels, metadata.labels),
    );
    const governing = only(all, 'StatefulSet').spec.serviceName;
    expect(found.map(({ metadata }) => metadata.name)).toEqual([governing]);
    expect(found[0]?.spec.ports[0].name).toBe(endpoints[0].port);
  });

  test('the ports are one port, the image’s', () => {
    const all = render(values('all'));
    const container = containerOf(only(all, 'StatefulSet'));
    const [{ number }] = only(all, 'InferencePool').spec.targetPorts;
    const ports = [container.ports[0].containerPort, number];
    expect(
      new Set([...ports, Number(environmentOf(only(all, 'StatefulSet')).LORAX_PORT)]).size,
    ).toBe(1);
    for (const image of ['cpu', 'cuda']) {
      const dockerfile = read('docker', `${image}.Dockerfile`);
      expect(dockerfile).toContain(`EXPOSE ${number}\n`);
      expect(dockerfile).toContain(`LORAX_PORT=${number}\n`);
      const user = only(all, 'StatefulSet').spec.template.spec.securityContext.runAsUser;
      expect(dockerfile).toContain(`USER ${user}:`);
    }
  });

  test('a GPU is asked for where there is to be one, with the limits that were given', () => {
    const { resources } = containerOf(only(render(values('gpu')), 'StatefulSet'));
    expect(resources.limits).toEqual({ memory: '64Gi', 'nvidia.com/gpu': 1 });
    const cpu = containerOf(only(render(values('cpu')), 'StatefulSet'));
    expect(cpu.resources.limits).toBeUndefined();
    expect(cpu.image).toMatch(/:\d[^:]*-cpu$/);
  });

  test('the values’ schema knows all settings but what the chart sets and what is secret', () => {
    const { properties } = JSON.parse(read('charts/lorax-js/values.schema.json')) as {
      properties: { config: { properties: object } };
    };
    const own = ['host', 'port', 'apiKey', 'adminKey', 'tlsKey', 'tlsCert'];
    const wanted = SETTING_KEYS.filter((key) => !own.includes(key));
    expect(Object.keys(properties.config.properties).sort()).toEqual(
      [...wanted, 'adapters', 'sources', 'tenants'].sort(),
    );
  });

  test('its version is the package’s', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    expect(parse(read('charts/lorax-js/Chart.yaml'))).toMatchObject({
      version,
      appVersion: version,
    });
  });

  test.each([
    ['all', 'config.model=', 'config.model is required'],
    ['all', 'config.modle=x', 'modle'],
    ['all', 'config.apiKey=secret', 'apiKey'],
    ['all', 'config.maxQueued=many', 'maxQueued'],
    ['all', 'config.metrics=off', 'config.metrics is off'],
    ['all', 'config.metrics=admin', 'inferencePool: its endpoint picker'],
    ['cpu', 'inferencePool.enabled=true,auth.apiKey=x', 'inferencePool: its endpoint picker'],
    ['cpu', 'serviceMonitor.enabled=true,auth.apiKey=x', 'asks for the admin key'],
    ['all', 'ingress.host=', 'ingress.host is required'],
    ['all', 'httpRoute.parentRefs=null', 'httpRoute.parentRefs is required'],
  ])('%s-values with %s is refused by name', (name, set, message) => {
    expect(() => template(values(name), '--set', set)).toThrow(message);
  });
});

test.skipIf(kubeconform === '' || schemas === '')('the schemas refuse what is wrong', () => {
  const resource = (spec: object) =>
    JSON.stringify({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' }, spec });
  const status = (text: string) =>
    run(kubeconform, ['-strict', '-schema-location', schemas], text).status;
  expect(status(resource({ ports: [{ port: 80 }] }))).toBe(0);
  expect(status(resource({ prots: [] }))).toBe(1);
  expect(status(resource({ ports: [{ port: 'eighty' }] }))).toBe(1);
});
