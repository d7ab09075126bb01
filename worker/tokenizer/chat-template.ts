/**
 * Messages -> prompt text, by the model's own Jinja chat template.
 *
 * Always holds: contents are shielded before the template sees them, so that what `render` returns
 * has control tokens only where the template wrote them (see control-tokens.ts). Reads the template
 * from chat_template.jinja or tokenizer_config.json. Called by tokenizer.ts.
 */
import { Template } from '@huggingface/jinja';
import { LoraxError } from '../../src/errors.js';
import type { ChatMessage } from '../../src/types.js';
import type { ControlTokens } from './control-tokens.js';

export interface TemplateSource {
  text: string;
  /** Where it was found, for errors. */
  file: string;
}

/** `chat_template`: a string, or a list of { name, template } of which 'default' counts. */
export function templateFromConfig(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = value.filter(
    (entry): entry is { name: string; template: string } =>
      typeof entry === 'object' &&
      entry !== null &&
      typeof (entry as { name?: unknown }).name === 'string' &&
      typeof (entry as { template?: unknown }).template === 'string',
  );
  return (named.find((entry) => entry.name === 'default') ?? named[0])?.template ?? null;
}

const ROLES = new Set(['system', 'user', 'assistant']);

export class ChatTemplate {
  private compiled: Template | null = null;

  constructor(
    private readonly source: TemplateSource | null,
    /** bos_token, eos_token, ...: what templates refer to by name. */
    private readonly specialTokens: Record<string, string>,
    private readonly control: ControlTokens,
  ) {}

  /** Prompt text with the generation prompt added; holds marks that ControlTokens.split removes. */
  render(messages: ChatMessage[]): string {
    const template = this.compile();
    const shielded = messages.map((message, index) => {
      if (!ROLES.has(message.role) || typeof message.content !== 'string') {
        throw new LoraxError(
          'INVALID_OPTIONS',
          `messages[${index}]: role must be system, user or assistant and content a string.`,
          { data: { field: `messages[${index}]` } },
        );
      }
      return {
        role: message.role,
        content: this.control.shield(message.content, message.role),
      };
    });
    try {
      return template.render({
        ...this.specialTokens,
        messages: shielded,
        tools: null,
        documents: null,
        add_generation_prompt: true,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      // Mostly the template's own raise_exception(), e.g. "roles must alternate".
      throw new LoraxError(
        'INVALID_OPTIONS',
        `messages: the model's chat template (${this.source?.file}) refuses them: ${reason}`,
        { data: { field: 'messages', file: this.source?.file, reason }, cause: error },
      );
    }
  }

  private compile(): Template {
    if (this.compiled !== null) return this.compiled;
    if (this.source === null) {
      throw new LoraxError(
        'INVALID_OPTIONS',
        'messages: this model has no chat template (neither chat_template.jinja nor ' +
          'tokenizer_config.json has one). Use `prompt` instead of `messages`.',
        { data: { field: 'messages' } },
      );
    }
    try {
      this.compiled = new Template(this.source.text);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new LoraxError(
        'MODEL_INVALID',
        `${this.source.file}: the chat template cannot be parsed: ${reason}`,
        { data: { file: this.source.file, field: 'chat_template', reason }, cause: error },
      );
    }
    return this.compiled;
  }
}
