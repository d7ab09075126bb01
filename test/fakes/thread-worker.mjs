// Stands in for dist/worker.mjs in a real thread, without native code: counts, one number every
// 5 ms, until it is cancelled. The last message's text is its script: a number is how far to
// count; "throw" and "exit" end the thread after 3 numbers.
export function serve({ port }) {
  const open = new Map();
  const usage = (id) => ({ promptTokens: 1, cachedTokens: 0, outputTokens: open.get(id) ?? 0 });
  const timing = { queueMs: 0, timeToFirstTokenMs: 1, totalMs: 1 };
  const emit = (...events) => port.postMessage(events);

  const generate = ({ id, prompt }) => {
    const script = prompt.messages.at(-1).content;
    open.set(id, 0);
    const start = { adapter: null, promptTokens: 1, cachedTokens: 0, queueMs: 0 };
    emit({ type: 'start', id, ...start });
    const timer = setInterval(() => {
      if (!open.has(id)) return clearInterval(timer);
      const count = open.get(id) + 1;
      open.set(id, count);
      if (count > 3 && script === 'throw') throw new Error('thrown in the worker');
      if (count > 3 && script === 'exit') process.exit(3);
      emit({ type: 'delta', id, text: ` ${count}`, tokenIds: [count] });
      // NaN for the scripts that are no number: they go on.
      if (!(count >= Number(script))) return;
      clearInterval(timer);
      const end = { reason: 'stop', rawReason: 'eos', usage: usage(id), timing };
      emit({ type: 'finish', id, ...end });
      open.delete(id);
    }, 5);
  };

  port.on('message', (commands) => {
    for (const command of commands) {
      const { type, id, call } = command;
      if (type === 'generate') {
        generate(command);
      } else if (type === 'cancel') {
        if (!open.has(id)) continue;
        emit({ type: 'aborted', id, usage: usage(id), timing });
        open.delete(id);
      } else if (type === 'dispose') {
        const error = { code: 'DISPOSED', message: 'disposed', data: {} };
        for (const each of open.keys()) {
          emit({ type: 'failed', id: each, error, usage: usage(each), timing });
        }
        open.clear();
        emit({ type: 'result', call, value: null });
        setImmediate(() => port.close());
      } else {
        emit({ type: 'result', call, value: null });
      }
    }
  });
}
