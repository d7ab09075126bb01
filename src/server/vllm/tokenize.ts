/**
 * POST /tokenize in vLLM's form (`prompt` or `messages`) and in LoRAX's (`inputs`), and vLLM's
 * /detokenize.
 */
import { checkBoolean, invalidOptions, type Fields } from '../../check-shape.js';
import { checkTokenIds } from '../../sampling-options.js';
import type { TokenizeRequest } from '../../types.js';
import type { RegisterRoutes, ServerContext, ServerState } from '../environment.js';
import { toLoraxError } from '../lorax/lorax-error.js';
import { tokenizeForLorax } from '../lorax/tokenize.js';
import { adapterAsked } from '../model-name.js';
import { chatMessagesOf } from '../openai/chat-messages.js';
import { templateReasoning } from '../openai/request-fields.js';
import { toolsOf } from '../openai/tool-fields.js';
import { readBody } from '../read-body.js';

export const registerTokenize: RegisterRoutes = (app, state) => {
  app.post('/tokenize', async (c) => {
    const fields = await readBody(c, state.maxBodyBytes);
    if (fields.inputs === undefined) return tokenize(c, state, fields);
    return tokenizeForLorax(c, fields).catch((error: unknown) => toLoraxError(c, error));
  });
  app.post('/detokenize', async (c) => {
    const fields = await readBody(c, state.maxBodyBytes);
    await adapterAsked(state, fields.model);
    const tokens = checkTokenIds(fields.tokens, 'tokens');
    if (tokens === undefined) throw invalidOptions('tokens', 'tokens is missing.');
    const { text } = await c.get('engine').detokenize(tokens);
    return c.json({ prompt: text });
  });
};

async function tokenize(c: ServerContext, state: ServerState, fields: Fields): Promise<Response> {
  await adapterAsked(state, fields.model);
  const { tokenIds } = await c.get('engine').tokenize(requestOf(fields));
  const strings = checkBoolean(fields.return_token_strs, 'return_token_strs') ?? false;
  if (strings) await state.tokens.learn(tokenIds);
  return c.json({
    count: tokenIds.length,
    max_model_len: (await state.info()).contextTokens,
    tokens: tokenIds,
    token_strs: strings ? tokenIds.map((id) => state.tokens.of(id).text) : null,
  });
}

function requestOf(fields: Fields): TokenizeRequest {
  if (fields.messages !== undefined) {
    const reasoning = templateReasoning(fields.chat_template_kwargs);
    const { tools } = toolsOf(fields, true);
    return {
      messages: chatMessagesOf(fields.messages),
      ...(tools === undefined ? {} : { tools }),
      ...(reasoning === undefined ? {} : { reasoning }),
    };
  }
  const { prompt } = fields;
  if (typeof prompt !== 'string') {
    throw invalidOptions('prompt', 'prompt must be a text, or messages a chat.', prompt);
  }
  const special = checkBoolean(fields.add_special_tokens, 'add_special_tokens');
  return special === undefined ? { prompt } : { prompt, addSpecialTokens: special };
}
