// As much of the Kubernetes API as the endpoint picker asks of its cluster: discovery, and list and watch of
// one InferencePool and its Pods. The objects stay as they are, and nothing here runs a pod.
import { createServer } from 'node:http';
import { once } from 'node:events';

const NAMESPACE = 'default';
const POOLS = 'inference.networking.k8s.io/v1';
const OTHERS = 'inference.networking.x-k8s.io/v1alpha2';
const LABELS = { app: 'lorax' };

/** A pool of ready pods, each an address that serves `port`. */
function resourcesOf({ addresses, port, poolName }) {
  const metadata = (name, more) => ({
    ...{ name, namespace: NAMESPACE, uid: name, resourceVersion: '1', ...more },
    creationTimestamp: new Date().toISOString(),
  });
  const pool = {
    ...{ apiVersion: POOLS, kind: 'InferencePool', metadata: metadata(poolName) },
    spec: {
      ...{ selector: { matchLabels: LABELS }, targetPorts: [{ number: port }] },
      endpointPickerRef: { kind: 'Service', name: 'epp', port: { number: 9002 } },
    },
  };
  const pods = addresses.map((address, i) => ({
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: metadata(`replica-${i}`, { labels: LABELS }) },
    spec: { containers: [{ name: 'server', ports: [{ containerPort: port }] }] },
    status: {
      ...{ phase: 'Running', podIP: address, podIPs: [{ ip: address }] },
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  }));
  return [
    { groupVersion: 'v1', name: 'pods', kind: 'Pod', items: pods },
    { groupVersion: POOLS, name: 'inferencepools', kind: 'InferencePool', items: [pool] },
    // A cluster that has the extension has these kinds; none of them is needed.
    { groupVersion: OTHERS, name: 'inferenceobjectives', kind: 'InferenceObjective', items: [] },
    {
      ...{ groupVersion: OTHERS, name: 'inferencemodelrewrites', kind: 'InferenceModelRewrite' },
      items: [],
    },
  ];
}

/** Discovery: what kinds there are. */
function documentsOf(resources) {
  const groupOf = (groupVersion) => {
    const [name, version] = groupVersion.split('/');
    return { name, versions: [{ groupVersion, version }] };
  };
  const documents = {
    '/api': { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] },
    '/apis': {
      ...{ kind: 'APIGroupList', apiVersion: 'v1', groups: [POOLS, OTHERS].map(groupOf) },
    },
  };
  for (const { groupVersion, name, kind } of resources) {
    const place = pathOf(groupVersion);
    documents[place] ??= { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources: [] };
    const verbs = ['get', 'list', 'watch'];
    documents[place].resources.push({ name, singularName: '', namespaced: true, kind, verbs });
  }
  return documents;
}

const pathOf = (groupVersion) => (groupVersion === 'v1' ? '/api/v1' : `/apis/${groupVersion}`);

/** Resolves to `{ url, close }`; `unknown` gets the path of every request that it has no answer for. */
export async function serveKubernetesApi({ addresses, port, poolName }, unknown) {
  const resources = resourcesOf({ addresses, port, poolName });
  const documents = documentsOf(resources);
  const lists = new Map(
    resources.map((each) => [
      `${pathOf(each.groupVersion)}/namespaces/${NAMESPACE}/${each.name}`,
      each,
    ]),
  );

  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://kubernetes');
    const answer = (status, document) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(document));
    };
    const document = documents[pathname];
    if (document !== undefined) return answer(200, document);
    const list = lists.get(pathname);
    if (list === undefined) {
      unknown(pathname);
      const failure = { status: 'Failure', reason: 'NotFound', code: 404 };
      return answer(404, { kind: 'Status', apiVersion: 'v1', ...failure });
    }
    const { groupVersion: apiVersion, kind, items } = list;
    const metadata = { resourceVersion: '1' };
    if (!['1', 'true'].includes(searchParams.get('watch'))) {
      return answer(200, { apiVersion, kind: `${kind}List`, metadata, items });
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    // A watch that is asked for what there is already says so when it has told all of it.
    if (searchParams.get('sendInitialEvents') !== 'true') return;
    const event = (type, object) => response.write(`${JSON.stringify({ type, object })}\n`);
    for (const item of items) event('ADDED', item);
    const annotations = { 'k8s.io/initial-events-end': 'true' };
    event('BOOKMARK', { apiVersion, kind, metadata: { ...metadata, annotations } });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
