/**
 * How the Gateway API Inference Extension's endpoint picker reads a model server and scores replicas,
 * from its published protocol (docs/proposals/003-model-server-protocol) and its scorers' rules; written
 * anew here, against the text of /metrics alone. bench/router.mjs asks the picker itself, which takes minutes to
 * build.
 */

export interface Series {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** Families by name, with their type, as the exposition format has them. */
export function parseMetrics(text: string): Map<string, { type: string; series: Series[] }> {
  const families = new Map<string, { type: string; series: Series[] }>();
  for (const line of text.split('\n')) {
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (type !== null) families.set(type[1] as string, { type: type[2] as string, series: [] });
    if (line === '' || line.startsWith('#')) continue;
    const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (sample === null) throw new Error(`no sample: ${line}`);
    const [, name = '', labelText = '', value = ''] = sample;
    const labels: Record<string, string> = {};
    let rest = labelText;
    while (rest !== '') {
      const label = /^(\w+)="((?:[^"\\]|\\.)*)",?/.exec(rest);
      if (label === null) throw new Error(`no label: ${rest}`);
      labels[label[1] as string] = (label[2] as string).replace(/\\(.)/g, (_, c: string) =>
        c === 'n' ? '\n' : c,
      );
      rest = rest.slice(label[0].length);
    }
    const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
    if (family === undefined) throw new Error(`a sample without a type: ${line}`);
    family.series.push({ name, labels, value: Number(value) });
  }
  return families;
}

export interface Endpoint {
  waitingQueueSize: number;
  runningRequests: number;
  kvCacheUsage: number;
  activeModels: Set<string>;
  waitingModels: Set<string>;
  maxActiveModels: number;
  blockSize: number;
  numBlocks: number;
}

/** Throws where the protocol's metrics are not there, or of another type. */
export function readEndpoint(text: string): Endpoint {
  const families = parseMetrics(text);
  const gauge = (name: string): Series => {
    const family = families.get(name);
    if (family === undefined) throw new Error(`${name} is missing`);
    if (family.type !== 'gauge') throw new Error(`${name} is a ${family.type}, not a gauge`);
    const [series, ...others] = family.series;
    if (series === undefined || others.length > 0) throw new Error(`${name}: one series, please`);
    return series;
  };
  const lora = gauge('vllm:lora_requests_info');
  const age = Math.abs(Date.now() / 1000 - lora.value);
  if (age > 5) throw new Error(`lora_requests_info is ${age} s old: its value is the time`);
  const cache = gauge('vllm:cache_config_info').labels;
  return {
    waitingQueueSize: gauge('vllm:num_requests_waiting').value,
    runningRequests: gauge('vllm:num_requests_running').value,
    kvCacheUsage: gauge('vllm:kv_cache_usage_perc').value,
    activeModels: names(lora.labels.running_lora_adapters),
    waitingModels: names(lora.labels.waiting_lora_adapters),
    maxActiveModels: integer(lora.labels.max_lora),
    blockSize: integer(cache.block_size),
    numBlocks: integer(cache.num_gpu_blocks),
  };
}

function names(csv: string | undefined): Set<string> {
  if (csv === undefined) throw new Error('a list of adapters is missing');
  return new Set(csv.split(',').flatMap((name) => name.trim() || []));
}

function integer(text: string | undefined): number {
  if (text === undefined || !/^\d+$/.test(text)) throw new Error(`no integer: ${text}`);
  return Number(text);
}

/** The sum of three scorers, each in [0, 1]: LoRA affinity, queue, KV cache. */
export function scores(endpoints: readonly Endpoint[], model: string): number[] {
  const queues = endpoints.map(({ waitingQueueSize }) => waitingQueueSize);
  const [shortest, longest] = [Math.min(...queues), Math.max(...queues)];
  return endpoints.map((endpoint) => {
    const { activeModels, waitingModels, maxActiveModels } = endpoint;
    const affinity = activeModels.has(model)
      ? 1
      : activeModels.size + waitingModels.size < maxActiveModels
        ? 0.8
        : waitingModels.has(model)
          ? 0.6
          : 0;
    const queue =
      longest === shortest ? 1 : (longest - endpoint.waitingQueueSize) / (longest - shortest);
    return affinity + queue + (1 - endpoint.kvCacheUsage);
  });
}
