/**
 * What GET /ui/events sends, one event a second: the border between the server (src/server/ui) and the
 * page (src/ui). Types only.
 */
import type { EngineStats } from '../../stats-types.js';

/**
 * `silent`: the engine has not answered for a while; `lost`: it is gone and being brought back;
 * `failed`: it cannot be loaded, or does not come back.
 */
export type DashboardState = 'loading' | 'ready' | 'draining' | 'silent' | 'lost' | 'failed';

export type PageCounts = EngineStats['pages'];

export interface Quantiles {
  /** Of the sliding window. */
  count: number;
  p50: number;
  p99: number;
}

/** What charts draw of one second; null: there was nothing of it. */
export interface DashboardPoint {
  /** ms since the epoch. */
  at: number;
  promptPerSecond: number | null;
  outputPerSecond: number | null;
  /** Means of the steps in it, of the newest 256 where there were more. */
  step: { prefill: number; decode: number; adapters: number; ms: number } | null;
  firstTokenMs: Quantiles | null;
  betweenTokensMs: Quantiles | null;
  pages: PageCounts | null;
}

export interface EngineFacts {
  architecture: string;
  device: string;
  deviceDescription: string;
  precision: string;
  contextTokens: number;
  pageBytes: number;
  blockTokens: number;
}

/** rows of prefill, rows of decode, distinct adapters, ms */
export type StepRow = [prefill: number, decode: number, adapters: number, ms: number];

export interface AdapterRow {
  name: string;
  /** Whose it is; unset = everybody's. */
  tenant?: string;
  state: string;
  /** The first 12 digits. */
  hash?: string;
  source: string;
  bytes: number;
  pages: number;
  rank: number;
  /** Requests that name it. */
  running: number;
  waiting: number;
  /** That hold its content in pages: other names may stand for the same. */
  holding: number;
  /** That have started, since the server's start. */
  requests: number;
  /** Why it failed, in words. */
  error?: string;
}

export interface DashboardEvent {
  /** ms since the epoch. */
  at: number;
  modelName: string;
  state: DashboardState;
  /** Why, where it is not ready. */
  reason?: string;
  uptimeMs: number;
  /** Times the engine was lost. */
  losses: number;
  /** Of the quantiles, seconds. */
  windowSeconds: number;
  engine?: EngineFacts;
  /** Unset while the engine does not answer. */
  now?: {
    pages: PageCounts;
    host: EngineStats['host'];
    requests: EngineStats['requests'];
    totals: Record<string, number>;
    /** The newest, oldest first, at most 256. */
    steps: StepRow[];
  };
  point: DashboardPoint;
  /** Older points, oldest first; in a viewer's first event alone. */
  history?: DashboardPoint[];
  /** `all`: these rows and no others; else those that have changed since the event before. */
  adapters: { all: boolean; rows: AdapterRow[]; gone: { name: string; tenant?: string }[] };
}
