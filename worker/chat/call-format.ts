/**
 * How families of chat templates write tool calls, as literal text: what the grammar enforces, what
 * the parser looks for, and what a model was trained to write are the same strings.
 *
 *   first before NAME after ARGUMENTS close  ( next before NAME after ARGUMENTS close )*  end
 *
 * A template is recognized by what it says about calls. One that says nothing of tools, or of a form
 * that is not here, gets PLAIN: the tools and the form are then told in the system message
 * (plain-messages.ts). Used by chat-template.ts and output/answer-plan.ts.
 */

export interface CallFormat {
  first: string;
  next: string;
  before: string;
  after: string;
  close: string;
  end: string;
  /** How `first before` begins: in free text a call begins where this is written. */
  trigger: string;
  /** Stands before `first` where the answer may be JSON too, so that the two differ. */
  besideJson: string;
}

/** Hermes, Qwen 2.5, Qwen 3. */
export const HERMES: CallFormat = {
  first: '<tool_call>\n',
  next: '\n<tool_call>\n',
  before: '{"name": "',
  after: '", "arguments": ',
  close: '}\n</tool_call>',
  end: '',
  trigger: '<tool_call>',
  besideJson: '',
};

/** Llama 3.1 and later. */
export const LLAMA3: CallFormat = {
  first: '',
  next: '; ',
  before: '{"name": "',
  after: '", "parameters": ',
  close: '}',
  end: '',
  trigger: '{"name"',
  besideJson: '<|python_tag|>',
};

/** Mistral up to v7: one list. Some of its templates have a space before it. */
export const MISTRAL_LIST: CallFormat = {
  first: '[TOOL_CALLS][',
  next: ', ',
  before: '{"name": "',
  after: '", "arguments": ',
  close: '}',
  end: ']',
  trigger: '[TOOL_CALLS]',
  besideJson: '',
};

export const MISTRAL_SPACED_LIST: CallFormat = { ...MISTRAL_LIST, first: '[TOOL_CALLS] [' };

/** Mistral from v11. */
export const MISTRAL_ARGS: CallFormat = {
  first: '[TOOL_CALLS]',
  next: '[TOOL_CALLS]',
  before: '',
  after: '[ARGS]',
  close: '',
  end: '',
  trigger: '[TOOL_CALLS]',
  besideJson: '',
};

/** Ours, for templates that have none. */
export const PLAIN: CallFormat = {
  first: '',
  next: '\n',
  before: '{"tool_call": {"name": "',
  after: '", "arguments": ',
  close: '}}',
  end: '',
  trigger: '{"tool_call"',
  besideJson: '',
};

/** `template`: the Jinja text, '' where there is none. */
export function callFormatOf(template: string): CallFormat {
  if (!/\btools\b/.test(template)) return PLAIN;
  if (template.includes('[TOOL_CALLS]')) {
    if (template.includes('[ARGS]')) return MISTRAL_ARGS;
    return template.includes('[TOOL_CALLS] [') ? MISTRAL_SPACED_LIST : MISTRAL_LIST;
  }
  // Others put XML or another kind of JSON between the same tags.
  const hasNamedArguments = /"name\\?":/.test(template) && /"arguments\\?":/.test(template);
  if (template.includes('<tool_call>') && hasNamedArguments) return HERMES;
  if (/"parameters\\?":/.test(template) && /python_tag|ipython/.test(template)) return LLAMA3;
  return PLAIN;
}
