// How much one tenant may have: requests and tokens a minute, requests at once.
import { describe, expect, test } from 'vitest';
import { createAccess } from '../../src/server/access/access.js';
import { TenantAllowance } from '../../src/server/access/tenant-limits.js';
import { createServer } from '../../src/server/create-server.js';
import { HttpError } from '../../src/server/http-error.js';
import type { TenantConfig } from '../../src/server/serve-config.js';
import { FakeEngine } from '../../src/testing/fake-engine.js';

function refusal(run: () => unknown): HttpError {
  try {
    run();
  } catch (error) {
    return error as HttpError;
  }
  throw new Error('was allowed');
}

describe('an allowance, by a clock of the test’s', () => {
  let now = 0;
  const after = (ms: number) => (now += ms);
  const allowance = (limits: ConstructorParameters<typeof TenantAllowance>[0]) =>
    new TenantAllowance(limits, () => now);

  test('requests a minute come back one by one', () => {
    const tenant = allowance({ requestsPerMinute: 3 });
    for (let i = 0; i < 3; i++) tenant.takeRequest();
    const error = refusal(() => tenant.takeRequest());
    expect([error.status, error.headers['retry-after-ms']]).toEqual([429, '20000']);
    after(15_000);
    const waitMs = Number(refusal(() => tenant.takeRequest()).headers['retry-after-ms']);
    expect(Math.abs(waitMs - 5000)).toBeLessThanOrEqual(1);
    after(waitMs);
    tenant.takeRequest();
    // A minute's worth at most, however long nobody came.
    after(3_600_000);
    for (let i = 0; i < 3; i++) tenant.takeRequest();
    expect(refusal(() => tenant.takeRequest()).status).toBe(429);
  });

  test('tokens are charged when they are known; a debt is waited off', () => {
    const tenant = allowance({ tokensPerMinute: 60 });
    tenant.begin()(180);
    const error = refusal(() => tenant.begin());
    expect([error.status, error.headers['retry-after']]).toEqual([429, '120']);
    expect(refusal(() => tenant.takeRequest()).status).toBe(429);
    after(120_001);
    tenant.begin()(0);
  });

  test('requests at once; an end counts once', () => {
    const tenant = allowance({ maxConcurrent: 2 });
    const [first] = [tenant.begin(), tenant.begin()];
    expect(refusal(() => tenant.begin()).status).toBe(429);
    first?.(1);
    first?.(1);
    expect(tenant.running).toBe(1);
    tenant.begin();
    expect(refusal(() => tenant.begin()).status).toBe(429);
  });
});

describe('through the server', () => {
  const key = 'key-of-one-0123456789';
  function serverOf(limits: Partial<TenantConfig>) {
    const engine = new FakeEngine({ answers: { base: 'one two three' }, tokenMs: 5 });
    const tenants = [
      { id: 'one', keys: [key], ...limits },
      { id: 'two', keys: [`${key}-2`] },
    ];
    const access = createAccess(engine, { tenants });
    const { fetch } = createServer({
      ...{ engine: access.engine, modelName: 'demo', middleware: [access.middleware] },
    });
    return (who = key, more = {}) =>
      fetch(
        new Request('http://server/v1/completions', {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${who}` },
          body: JSON.stringify({ model: 'demo', prompt: 'count', ...more }),
        }),
      ) as Promise<Response>;
  }

  test('one tenant’s limit is no other’s', async () => {
    const ask = serverOf({ requestsPerMinute: 2 });
    expect([(await ask()).status, (await ask()).status]).toEqual([200, 200]);
    const refused = await ask();
    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await refused.json()).toMatchObject({
      error: { type: 'rate_limit_error', code: 'rate_limit_exceeded' },
    });
    expect((await ask(`${key}-2`)).status).toBe(200);
  });

  test('prompt and answer are charged', async () => {
    const ask = serverOf({ tokensPerMinute: 1 });
    expect((await ask()).status).toBe(200);
    expect((await ask()).status).toBe(429);
  });

  test('at once: a stream counts until it has ended, one that was left too', async () => {
    const ask = serverOf({ maxConcurrent: 1 });
    const streaming = await ask(key, { stream: true });
    expect((await ask()).status).toBe(429);
    await streaming.text();
    expect((await ask()).status).toBe(200);
    const left = await ask(key, { stream: true });
    expect((await ask()).status).toBe(429);
    await left.body?.cancel();
    await expect.poll(async () => (await ask()).status).toBe(200);
    // Several answers are several requests to the engine.
    expect((await ask(key, { n: 2, temperature: 1 })).status).toBe(429);
  });
});

test('what is no error of ours says nothing of the inside', async () => {
  const engine = new FakeEngine({ answers: { base: new Error('at /srv/secret.ts:1') } });
  const { fetch } = createServer({ engine, modelName: 'demo' });
  const answer = await fetch(
    new Request('http://server/v1/completions', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo', prompt: 'hello' }),
    }),
  );
  const text = await answer.text();
  expect(answer.status).toBe(500);
  expect(text).not.toMatch(/secret|\.ts|at \//);
});
