/**
 * Messages and tools -> prompt text, by the model's own Jinja chat template.
 *
 * Always holds: what messages and tools say is shielded before the template sees it, so that what
 * `render` returns has control tokens only where the template wrote them (see control-tokens.ts).
 * A template that knows no tools is given them in plain turns. Called by tokenizer.ts.
 */
import { Template } from '@huggingface/jinja';
import { LoraxError } from '../../src/errors.js';
import type { ChatMessage, ToolDefinition } from '../../src/types.js';
import { callFormatOf, PLAIN, type CallFormat } from '../chat/call-format.js';
import { foldSystem, plainMessages } from '../chat/plain-messages.js';
import {
  closedThinking,
  reasoningTagsOf,
  thinkingAfter,
  type ReasoningTags,
  type Thinking,
} from '../chat/reasoning-tags.js';
import { inOrderOfCalls, templateMessages, templateTools } from '../chat/template-messages.js';
import { restoreMarks, type ControlTokens } from './control-tokens.js';

export interface TemplateSource {
  text: string;
  /** Where it was found, for errors. */
  file: string;
}

/** What a template renders. */
export interface Chat {
  messages: ChatMessage[];
  tools?: readonly ToolDefinition[];
  /** Unset: as the template has it. */
  reasoning?: boolean;
}

export interface RenderedChat {
  /** With the generation prompt; holds marks that ControlTokens.split removes. */
  text: string;
  thinking: Thinking;
}

/**
 * `chat_template`: a string, or a list of { name, template }, of which `name` counts, where there is
 * one, else 'default'.
 */
export function templateFromConfig(value: unknown, name = 'default'): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = value.filter(
    (entry): entry is { name: string; template: string } =>
      typeof entry === 'object' &&
      entry !== null &&
      typeof (entry as { name?: unknown }).name === 'string' &&
      typeof (entry as { template?: unknown }).template === 'string',
  );
  const find = (wanted: string) => named.find((entry) => entry.name === wanted);
  return (find(name) ?? find('default') ?? named[0])?.template ?? null;
}

const ROLES = new Set(['system', 'user', 'assistant', 'tool']);

export class ChatTemplate {
  /** How its model writes calls. */
  readonly callFormat: CallFormat;
  /** null: its model does not reason. */
  readonly reasoningTags: ReasoningTags | null;
  private compiled: Template | null = null;
  private systemShown: boolean | null = null;

  constructor(
    private readonly source: TemplateSource | null,
    /** bos_token, eos_token, ...: what templates refer to by name. */
    private readonly specialTokens: Record<string, string>,
    private readonly control: ControlTokens,
  ) {
    const text = source?.text ?? '';
    this.callFormat = callFormatOf(text);
    this.reasoningTags = reasoningTagsOf(text, (content) => control.has(content));
  }

  render({ messages, tools = [], reasoning }: Chat): RenderedChat {
    const template = this.compile();
    messages.forEach(checkMessage);
    const text = this.print(template, this.variables(messages, tools, reasoning));
    const tags = this.reasoningTags;
    if (tags === null) return { text, thinking: 'none' };
    if (reasoning === false && tags.inTemplate) {
      return { text: text + closedThinking(text, tags), thinking: 'none' };
    }
    return { text, thinking: thinkingAfter(text, tags) };
  }

  private variables(
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
    reasoning: boolean | undefined,
  ): Record<string, unknown> {
    const shield = (content: string, role: string) => this.control.shield(content, role);
    const text = this.source?.text ?? '';
    const plain = this.callFormat === PLAIN;
    let turns = inOrderOfCalls(messages);
    if (plain) turns = plainMessages(turns, tools);
    if (plain && tools.length > 0 && !this.takesSystem()) turns = foldSystem(turns);
    return {
      ...this.specialTokens,
      messages: templateMessages(turns, {
        shield,
        oneCallPerTurn: /single tool-calls? at once/i.test(text),
      }),
      tools: plain || tools.length === 0 ? null : templateTools(tools, shield),
      documents: null,
      add_generation_prompt: true,
      ...(reasoning === undefined ? {} : { enable_thinking: reasoning, thinking: reasoning }),
    };
  }

  /** Some templates refuse a system turn, some leave it out. */
  private takesSystem(): boolean {
    if (this.systemShown !== null) return this.systemShown;
    const probe = 'a system turn';
    const turns = [
      { role: 'system', content: probe },
      { role: 'user', content: 'a user turn' },
    ];
    try {
      const variables = { ...this.specialTokens, messages: turns, tools: null, documents: null };
      this.systemShown = this.compile()
        .render({ ...variables, add_generation_prompt: true })
        .includes(probe);
    } catch {
      this.systemShown = false;
    }
    return this.systemShown;
  }

  private print(template: Template, variables: Record<string, unknown>): string {
    try {
      return restoreMarks(template.render(variables));
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

/** src/ has checked them; who calls the worker otherwise is told as well. */
function checkMessage(message: ChatMessage, index: number): void {
  if (ROLES.has(message.role) && typeof message.content === 'string') return;
  throw new LoraxError(
    'INVALID_OPTIONS',
    `messages[${index}]: role must be system, user, assistant or tool and content a string.`,
    { data: { field: `messages[${index}]` } },
  );
}
