'use client';

import type { AnswerOptions, ChatMessage } from '@/lib/messages';
import { DefaultChatTransport } from 'ai';
import { type FormEvent, useState } from 'react';
import { EngineStrip } from './engine-strip';
import { type Side, useSide } from './use-side';

const transport = new DefaultChatTransport<ChatMessage>({ api: '/api/chat' });

/** One question, two adapters, two answers that share a batch. */
export function Chat({ adapters }: { adapters: string[] }) {
  const sides = [useSide('left', 'base', transport), useSide('right', 'pirate', transport)];
  const [question, setQuestion] = useState('Where is my order 4821?');
  const [endless, setEndless] = useState(false);
  const answering = sides.some((side) => side.answering);

  function ask(event: FormEvent) {
    event.preventDefault();
    if (answering || question.trim() === '') return;
    for (const { adapter, chat } of sides) {
      const body: AnswerOptions = { adapter, endless };
      void chat.sendMessage({ text: question }, { body });
    }
    setQuestion('');
  }

  return (
    <main>
      <header>
        <h1>One model, many adapters</h1>
        <EngineStrip />
      </header>
      <div className="sides">
        {sides.map((side) => (
          <Answers key={side.name} side={side} adapters={adapters} />
        ))}
      </div>
      <form onSubmit={ask}>
        <input
          aria-label="Question"
          placeholder="Ask about an order, a product, delivery ..."
          value={question}
          onChange={(event) => setQuestion(event.target.value)}
        />
        <label title="The demo model is brief; this keeps it talking">
          <input
            type="checkbox"
            checked={endless}
            onChange={(event) => setEndless(event.target.checked)}
          />
          endless
        </label>
        {answering ? (
          <button type="button" onClick={() => sides.forEach(({ chat }) => void chat.stop())}>
            Stop
          </button>
        ) : (
          <button type="submit">Ask</button>
        )}
      </form>
    </main>
  );
}

function Answers({ side, adapters }: { side: Side; adapters: string[] }) {
  const { name, adapter, setAdapter, chat } = side;
  return (
    <section aria-label={`${name} answers`} aria-busy={side.answering}>
      <select
        aria-label={`${name} adapter`}
        value={adapter}
        onChange={(event) => setAdapter(event.target.value)}
      >
        {adapters.map((each) => (
          <option key={each}>{each}</option>
        ))}
      </select>
      {/* A new function at every render: React calls it again, and the newest line is in sight. */}
      <div className="messages" ref={(list) => list?.scrollTo({ top: list.scrollHeight })}>
        {chat.messages.map((message) => (
          <Message key={message.id} message={message} />
        ))}
        {chat.error && <p role="alert">{chat.error.message}</p>}
      </div>
    </section>
  );
}

function Message({ message: { role, parts, metadata } }: { message: ChatMessage }) {
  const text = parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
  const speed = metadata?.tokensPerSecond;
  return (
    <article className={role}>
      <p>{text}</p>
      {metadata?.adapter && (
        <footer>
          {metadata.adapter}
          {speed !== undefined && <span>{Math.round(speed)} tokens/s</span>}
        </footer>
      )}
    </article>
  );
}
