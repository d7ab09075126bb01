"""The official `openai` package, unmodified, against a live server on the demo model."""

import base64
import json
import os
import struct
import unittest
from typing import Literal

import openai
from pydantic import BaseModel

URL = os.environ["LORAX_TEST_URL"]
MESSAGES = [{"role": "user", "content": "Where is my order 4821?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_order",
            "description": "Where an order is.",
            "parameters": {
                "type": "object",
                "properties": {"id": {"type": "integer", "minimum": 0, "maximum": 9999}},
                "required": ["id"],
                "additionalProperties": False,
            },
        },
    }
]


class Place(BaseModel):
    city: Literal["Oslo", "Bergen"]
    days: int


def client() -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)


class Chat(unittest.TestCase):
    def setUp(self):
        self.client = client()
        self.addCleanup(self.client.close)

    def ask(self, **more):
        options = {"model": "pirate", "messages": MESSAGES, "max_tokens": 24, **more}
        return self.client.chat.completions.create(**options)

    def test_model_names(self):
        texts = {m: self.ask(model=m).choices[0].message.content for m in ("demo", "pirate", "demo:pirate")}
        self.assertEqual(texts["pirate"], texts["demo:pirate"])
        self.assertNotEqual(texts["pirate"], texts["demo"])

    def test_stream_with_usage(self):
        whole = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].choices, [])

    def test_stream_helper(self):
        # It raises where an answer was cut off, so this one ends by itself.
        options = {"model": "pirate", "messages": MESSAGES}
        with self.client.chat.completions.stream(**options) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.delta", kinds)
        whole = self.client.chat.completions.create(**options)
        self.assertEqual(final.choices[0].message.content, whole.choices[0].message.content)
        self.assertEqual(final.choices[0].finish_reason, "stop")

    def test_n_and_seed(self):
        ask = lambda: self.ask(model="demo", n=3, temperature=5, seed=7)
        texts = [c.message.content for c in ask().choices]
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual([c.message.content for c in ask().choices], texts)

    def test_logprobs(self):
        choice = self.ask(model="demo", logprobs=True, top_logprobs=2, max_tokens=6).choices[0]
        self.assertEqual(len(choice.logprobs.content), 6)
        self.assertEqual("".join(t.token for t in choice.logprobs.content), choice.message.content)
        for token in choice.logprobs.content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(bytes(token.bytes).decode(), token.token)

    def test_logit_bias_and_stop(self):
        plain = self.ask(model="demo").choices[0].message.content
        word = plain.split(" ")[1]
        stopped = self.ask(model="demo", stop=[word]).choices[0]
        self.assertEqual(stopped.message.content, plain[: plain.index(word)])
        self.assertEqual(stopped.finish_reason, "stop")

    def test_extra_body_of_vllm(self):
        answer = self.ask(extra_body={"guided_choice": ["yes", "no"], "top_k": 5, "min_p": 0.1})
        self.assertIn(answer.choices[0].message.content, ("yes", "no"))
        outputs = {"structured_outputs": {"regex": "[A-F]{4}"}}
        self.assertRegex(self.ask(extra_body=outputs).choices[0].message.content, "^[A-F]{4}$")

    def test_tools(self):
        options = {"model": "demo", "tools": TOOLS, "tool_choice": "required", "max_tokens": 64}
        answer = self.ask(parallel_tool_calls=False, **options)
        (call,) = answer.choices[0].message.tool_calls
        self.assertEqual(call.function.name, "find_order")
        self.assertIn("id", json.loads(call.function.arguments))
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        after = self.ask(
            messages=[
                *MESSAGES,
                answer.choices[0].message,
                {"role": "tool", "tool_call_id": call.id, "content": '{"at": "Oslo"}'},
            ]
        )
        self.assertTrue(after.choices[0].message.content)
        parts = [
            c.choices[0].delta.tool_calls[0].function.arguments or ""
            for c in self.ask(parallel_tool_calls=False, stream=True, **options)
            if c.choices and c.choices[0].delta.tool_calls
        ]
        self.assertEqual("".join(parts), call.function.arguments)

    def test_parse_into_a_model(self):
        answer = self.client.chat.completions.parse(
            model="demo", messages=MESSAGES, response_format=Place, max_tokens=64
        )
        self.assertIsInstance(answer.choices[0].message.parsed, Place)

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.ask(model="nobody")
        self.assertEqual(raised.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.ask(temperature=-1)
        self.assertEqual(raised.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as raised:
            self.ask(messages=[{"role": "user", "content": "word " * 9000}], stream=True)
        self.assertEqual(raised.exception.code, "context_length_exceeded")


class Others(unittest.TestCase):
    def setUp(self):
        self.client = client()
        self.addCleanup(self.client.close)

    def test_models(self):
        self.assertEqual([m.id for m in self.client.models.list()], ["demo", "french", "json", "pirate"])
        self.assertEqual(self.client.models.retrieve("pirate").id, "pirate")

    def test_completions(self):
        options = {"model": "demo", "prompt": "The order is", "max_tokens": 6}
        plain = self.client.completions.create(**options, logprobs=1)
        choice = plain.choices[0]
        self.assertEqual("".join(choice.logprobs.tokens), choice.text)
        echoed = self.client.completions.create(**options, echo=True)
        self.assertEqual(echoed.choices[0].text, "The order is" + choice.text)
        streamed = self.client.completions.create(**options, stream=True)
        self.assertEqual("".join(c.choices[0].text for c in streamed), choice.text)
        best = self.client.completions.create(**options, n=1, best_of=3, temperature=2, seed=1)
        self.assertEqual(len(best.choices), 1)

    def test_embeddings(self):
        texts = ["Where is my order?", "Do you ship to Norway?"]
        packed = self.client.embeddings.create(model="french", input=texts)
        plain = self.client.embeddings.create(model="french", input=texts, encoding_format="float")
        for one, two in zip(packed.data, plain.data):
            self.assertEqual(list(one.embedding), two.embedding)
        raw = self.client.embeddings.create(model="french", input=texts[0], encoding_format="base64")
        numbers = struct.unpack(f"<{len(plain.data[0].embedding)}f", base64.b64decode(raw.data[0].embedding))
        self.assertEqual(list(numbers), plain.data[0].embedding)

    def test_responses(self):
        options = {"model": "pirate", "input": "Where is my order 4821?"}
        whole = self.client.responses.create(**options)
        self.assertTrue(whole.output_text)
        cut = self.client.responses.create(**options, max_output_tokens=4)
        self.assertEqual((cut.status, cut.usage.output_tokens), ("incomplete", 4))
        with self.client.responses.stream(**options) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        self.assertEqual(final.output_text, whole.output_text)
        self.assertEqual(kinds[0], "response.created")

    def test_responses_tools_and_parse(self):
        tool = {"type": "function", "strict": True, **TOOLS[0]["function"]}
        options = {"model": "demo", "input": "Where is my order 4821?"}
        first = self.client.responses.create(
            **options, tools=[tool], tool_choice="required", parallel_tool_calls=False
        )
        (call,) = first.output
        self.assertEqual(call.type, "function_call")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Oslo"}
        question = {"role": "user", "content": options["input"]}
        second = self.client.responses.create(
            model="demo", input=[question, call, result], max_output_tokens=8
        )
        self.assertTrue(second.output_text)
        parsed = self.client.responses.parse(**options, text_format=Place)
        self.assertIsInstance(parsed.output_parsed, Place)


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_streams_side_by_side(self):
        import asyncio

        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none") as client:

            async def say(model: str) -> str:
                stream = await client.chat.completions.create(
                    model=model, messages=MESSAGES, max_tokens=24, stream=True
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream])

            models = ["demo", "pirate", "french"] * 4
            texts = await asyncio.gather(*(say(model) for model in models))
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual(texts[:3] * 4, texts)

    async def test_leaving_a_stream(self):
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(
                model="demo",
                messages=MESSAGES,
                max_tokens=4000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for _ in stream:
                break
            await stream.close()
            answer = await client.chat.completions.create(
                model="demo", messages=MESSAGES, max_tokens=2
            )
        self.assertTrue(answer.choices[0].message.content)


if __name__ == "__main__":
    unittest.main()
