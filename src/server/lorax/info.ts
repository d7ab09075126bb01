/** LoRAX's GET /info: what is served, and within which limits. */
import type { RegisterRoutes } from '../environment.js';
import { baseModelName } from '../model-name.js';

const DTYPES = { bfloat16: 'torch.bfloat16', float32: 'torch.float32' } as const;

export const registerLoraxInfo: RegisterRoutes = (app, state) => {
  app.get('/info', async (c) => {
    const info = await state.info();
    return c.json({
      model_id: baseModelName(state, info),
      model_sha: null,
      model_dtype: DTYPES[info.precision],
      model_device_type: info.device,
      model_pipeline_tag: 'text-generation',
      max_best_of: 16,
      max_input_length: info.contextTokens - 1,
      max_total_tokens: info.contextTokens,
      max_batch_total_tokens: info.numPages * info.blockTokens,
      version: 'lorax-js',
      sha: null,
      docker_label: null,
    });
  });
};
