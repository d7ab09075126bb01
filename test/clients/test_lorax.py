"""PyPI's `lorax-client`, unmodified, against a live server on the demo model."""

import os
import unittest

from lorax import AsyncClient, Client
from lorax.errors import NotFoundError, ValidationError
from lorax.types import FinishReason

URL = os.environ["LORAX_TEST_URL"]
PROMPT = "My order has not arrived"


class Generate(unittest.TestCase):
    def setUp(self):
        self.client = Client(URL)

    def test_base_and_adapter(self):
        base = self.client.generate(PROMPT, max_new_tokens=12)
        pirate = self.client.generate(
            PROMPT, adapter_id="pirate", adapter_source="local", max_new_tokens=12
        )
        self.assertNotEqual(base.generated_text, pirate.generated_text)
        details = base.details
        self.assertEqual(details.generated_tokens, 12)
        self.assertEqual(details.finish_reason, FinishReason.Length)
        self.assertIsNone(details.seed)
        self.assertEqual("".join(t.text for t in details.tokens), base.generated_text)
        self.assertTrue(all(t.logprob <= 0 for t in details.tokens))

    def test_stream(self):
        whole = self.client.generate(PROMPT, adapter_id="french", max_new_tokens=12)
        events = list(self.client.generate_stream(PROMPT, adapter_id="french", max_new_tokens=12))
        text = "".join(e.token.text for e in events if not e.token.special)
        self.assertEqual(text, whole.generated_text)
        self.assertEqual(events[-1].generated_text, whole.generated_text)
        self.assertEqual(events[-1].details.generated_tokens, 12)
        self.assertTrue(all(e.generated_text is None for e in events[:-1]))

    def test_sampling(self):
        options = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 12}
        one = self.client.generate(PROMPT, seed=3, **options)
        two = self.client.generate(PROMPT, seed=3, **options)
        other = self.client.generate(PROMPT, seed=4, **options)
        self.assertEqual(one.generated_text, two.generated_text)
        self.assertNotEqual(one.generated_text, other.generated_text)
        self.assertEqual(one.details.seed, 3)

    def test_best_of(self):
        answer = self.client.generate(PROMPT, best_of=3, temperature=4.0, max_new_tokens=6)
        self.assertEqual(len(answer.details.best_of_sequences), 2)

    def test_stop_full_text_and_truncate(self):
        plain = self.client.generate(PROMPT, max_new_tokens=12).generated_text
        full = self.client.generate(PROMPT, max_new_tokens=12, return_full_text=True)
        self.assertEqual(full.generated_text, PROMPT + plain)
        word = plain.split()[1]
        stopped = self.client.generate(PROMPT, max_new_tokens=12, stop_sequences=[word])
        self.assertEqual(stopped.details.finish_reason, FinishReason.StopSequence)
        self.assertTrue(stopped.generated_text.endswith(word))
        cut = self.client.generate(PROMPT, max_new_tokens=2, truncate=3)
        self.assertEqual(cut.details.prompt_tokens, 3)

    def test_errors(self):
        with self.assertRaises(ValidationError):
            self.client.generate(PROMPT, watermark=True)
        with self.assertRaises((NotFoundError, ValidationError)):
            self.client.generate(PROMPT, adapter_id="nobody")
        with self.assertRaises(ValidationError):
            list(self.client.generate_stream("word " * 9000))


class AsyncGenerate(unittest.IsolatedAsyncioTestCase):
    async def test_generate_and_stream(self):
        client = AsyncClient(URL)
        whole = await client.generate(PROMPT, adapter_id="pirate", max_new_tokens=8)
        text = ""
        async for event in client.generate_stream(PROMPT, adapter_id="pirate", max_new_tokens=8):
            if not event.token.special:
                text += event.token.text
        self.assertEqual(text, whole.generated_text)


if __name__ == "__main__":
    unittest.main()
