/**
 * The gauges and counters that vLLM has and that routers go by: the Gateway API Inference Extension's
 * model-server protocol and llm-d, with no configuration of theirs.
 *
 * All are read off one census at the moment of the scrape. Called by server-metrics.ts.
 */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { Census } from './adapter-census.js';

export type ReadCensus = (census: Census) => void;

/** Sets up the metrics; what it returns brings them up to date. */
export function registerVllmMetrics(registry: Registry, modelName: string): ReadCensus {
  const registers = [registry];
  const labels = { model_name: modelName, engine: '0' };
  const labelNames = ['model_name', 'engine'];
  const gauge = (name: string, help: string) => new Gauge({ name, help, labelNames, registers });
  const counter = (name: string, help: string) =>
    new Counter({ name, help, labelNames, registers });

  const running = gauge('vllm:num_requests_running', 'Requests in the batch.');
  const waiting = gauge('vllm:num_requests_waiting', 'Requests in the queue.');
  const kvUsage = gauge(
    'vllm:kv_cache_usage_perc',
    'Share of the pages that KV can have which running requests hold; 1 = all of them.',
  );
  const cacheConfig = new Gauge({
    name: 'vllm:cache_config_info',
    help: 'The page pool: tokens of a block, and blocks.',
    labelNames: ['block_size', 'num_gpu_blocks', 'cache_dtype', 'enable_prefix_caching', 'engine'],
    registers,
  });
  const loraInfo = new Gauge({
    name: 'vllm:lora_requests_info',
    help: 'Adapters in the page pool, and those that requests wait for; the value is the time.',
    labelNames: ['max_lora', 'running_lora_adapters', 'waiting_lora_adapters'],
    registers,
  });
  const loraLoaded = new Gauge({
    name: 'vllm:lora_adapter_loaded',
    help: 'Where an adapter is: gpu = in the page pool, cpu = in host memory.',
    labelNames: ['adapter_name', 'level', 'pinned'],
    registers,
  });
  const inPool = gauge('vllm:num_gpu_loaded_lora_adapters', 'Adapters in the page pool.');
  const inHost = gauge('vllm:num_cpu_loaded_lora_adapters', 'Adapters in host memory alone.');
  const totals = {
    promptTokens: counter('vllm:prompt_tokens_total', 'Tokens of prompts.'),
    outputTokens: counter('vllm:generation_tokens_total', 'Tokens of answers.'),
    preemptions: counter('vllm:num_preemptions_total', 'Requests that gave way to others.'),
    cachedTokens: counter(
      'vllm:prefix_cache_hits_total',
      'Tokens of prompts whose KV was there already.',
    ),
  };
  const queries = counter(
    'vllm:prefix_cache_queries_total',
    'Tokens of prompts that were looked for.',
  );

  /** As loraLoaded has them. */
  const levels = new Map<string, string>();

  return ({ info, stats, adapters, resident, waiting: wanted, maxResident, kvUsage: usage }) => {
    running.set(labels, stats.requests.running);
    waiting.set(labels, stats.requests.waiting);
    kvUsage.set(labels, usage);
    cacheConfig.reset();
    cacheConfig.set(
      {
        ...{ block_size: info.blockTokens, num_gpu_blocks: info.numPages, engine: '0' },
        ...{ cache_dtype: info.precision, enable_prefix_caching: 'True' },
      },
      1,
    );
    loraInfo.reset();
    loraInfo.set(
      {
        max_lora: maxResident,
        running_lora_adapters: resident.join(','),
        waiting_lora_adapters: wanted.join(','),
      },
      Date.now() / 1000,
    );
    const gone = new Map(levels);
    let host = 0;
    for (const { name, state } of adapters) {
      const level = state === 'resident' ? 'gpu' : state === 'host' ? 'cpu' : undefined;
      if (level === undefined) continue;
      if (level === 'cpu') host++;
      // Of thousands few have moved since the last scrape.
      if (levels.get(name) === level) gone.delete(name);
      else loraLoaded.set(loadedLabels(name, level), 1);
      levels.set(name, level);
    }
    for (const [name, level] of gone) {
      loraLoaded.remove(loadedLabels(name, level));
      if (levels.get(name) === level) levels.delete(name);
    }
    inPool.set(labels, resident.length);
    inHost.set(labels, host);
    for (const key of ['promptTokens', 'outputTokens', 'preemptions', 'cachedTokens'] as const) {
      totals[key].reset();
      totals[key].inc(labels, stats.totals[key]);
    }
    queries.reset();
    queries.inc(labels, stats.totals.promptTokens);
  };
}

const loadedLabels = (name: string, level: string) => ({
  adapter_name: name,
  level,
  pinned: 'false',
});
