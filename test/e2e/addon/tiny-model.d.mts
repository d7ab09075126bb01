// Types of tiny-model.mjs, which stays plain JavaScript for child processes.
export interface RequestLog {
  tokens: number[];
  logprobs: number[];
  end: {
    reason?: number;
    failure?: { code: string };
    aborted?: boolean;
    embedding?: Float32Array;
  } | null;
}

export class EventLog {
  requests: Map<number, RequestLog>;
  onEvents: (events: unknown) => void;
  of(id: number): RequestLog;
  until(id: number, done: (request: RequestLog) => boolean): Promise<RequestLog>;
  ended(id: number): Promise<RequestLog>;
  streaming(id: number, count?: number): Promise<RequestLog>;
}

export function loadAddon(): unknown;
export function tinyConfig(folder: string, overrides?: object): unknown;
export function tinyAdapter(folder: string, options?: { seed?: number; rank?: number }): unknown;
export function sampling(overrides?: object): object;
export function startEngine(
  config: unknown,
  options?: { prompt?: number[] },
): Promise<{ engine: unknown; log: EventLog; progress: [number, number][] }>;
