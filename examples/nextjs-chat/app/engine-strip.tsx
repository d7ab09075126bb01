'use client';

import type { EngineStatus } from '@/lib/messages';
import { useEffect, useState } from 'react';

/** What the engine is doing, asked every second: a light per adapter, pages, requests. */
export function EngineStrip() {
  const [status, setStatus] = useState<EngineStatus>();

  useEffect(() => {
    const left = new AbortController();
    const ask = async () => {
      const response = await fetch('/api/status', { signal: left.signal });
      if (response.ok) setStatus(await response.json());
    };
    // A server that is being restarted answers the next time.
    const poll = () => void ask().catch(() => undefined);
    poll();
    const timer = setInterval(poll, 1000);
    return () => {
      clearInterval(timer);
      left.abort();
    };
  }, []);

  if (status === undefined) return <p className="engine">starting the engine ...</p>;
  const { device, pages, requests, adapters } = status;
  return (
    <div className="engine">
      <p>
        {device} · {pages.kv + pages.adapter} of {pages.total} pages · {requests.running} running
      </p>
      <ul aria-label="Adapters">
        {adapters.map(({ name, rank, resident, activeRequests }) => {
          const state = activeRequests > 0 ? 'active' : resident ? 'resident' : 'loaded';
          return (
            <li key={name} className={state} title={`rank ${rank}, ${state}`}>
              {name}
            </li>
          );
        })}
      </ul>
    </div>
  );
}
