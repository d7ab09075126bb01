import { lorax } from '@/lib/lorax';
import type { EngineStatus } from '@/lib/messages';

export async function GET(): Promise<Response> {
  const [{ deviceDescription }, { pages, requests, totals }, adapters] = await Promise.all([
    lorax.engine.ready(),
    lorax.stats(),
    lorax.adapters.list(),
  ]);
  const status: EngineStatus = {
    device: deviceDescription,
    pages,
    requests,
    finished: totals.finished,
    adapters: adapters.map(({ name, rank, state, activeRequests }) => ({
      ...{ name, rank, resident: state === 'resident', activeRequests },
    })),
  };
  return Response.json(status, { headers: { 'cache-control': 'no-store' } });
}
