/** GET /health: 200 while the engine answers, as vLLM's and LoRAX's probes expect. */
import type { RegisterRoutes } from './environment.js';

export const registerHealth: RegisterRoutes = (app, { engine }) => {
  app.get('/health', async (c) => {
    await engine.ready();
    return c.body(null, 200);
  });
};
