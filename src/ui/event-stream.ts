/** The `data` of server-sent events, as they come: of the dashboard's feed and of the chat's answers. */

export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + decoder.decode(value, { stream: true })).split('\n\n');
      rest = events.pop() ?? '';
      for (const event of events) {
        if (event.startsWith('data: ')) yield event.slice('data: '.length);
      }
    }
  } finally {
    // Whoever stops reading leaves.
    await reader.cancel().catch(() => undefined);
  }
}

/** What the server says of a refusal, in its own words. */
export async function refusalOf(response: Response): Promise<string> {
  try {
    const { error } = (await response.json()) as { error?: { message?: string } };
    if (typeof error?.message === 'string') return error.message;
  } catch {
    // A proxy's page.
  }
  return `The server answered ${response.status} ${response.statusText}.`;
}
