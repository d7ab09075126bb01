"""The curl calls that vLLM's documentation shows, with this server's model and adapters in them."""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

URL = os.environ["LORAX_TEST_URL"]
ADAPTERS = pathlib.Path(__file__).resolve().parents[2] / "models" / "demo" / "adapters"


@unittest.skipUnless(shutil.which("curl"), "there is no curl on this machine")
class Documented(unittest.TestCase):
    def curl(self, path: str, body: object = None) -> tuple[int, str]:
        command = ["curl", "-sS", "-w", "\n%{http_code}", f"{URL}{path}"]
        if body is not None:
            command += ["-X", "POST", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text, _, status = output.rpartition("\n")
        return int(status), text

    def json(self, path: str, body: object = None) -> dict:
        status, text = self.curl(path, body)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def test_models(self):
        models = self.json("/v1/models")["data"]
        by_id = {model["id"]: model for model in models}
        self.assertIsNone(by_id["demo"]["parent"])
        self.assertEqual(by_id["pirate"]["parent"], "demo")

    def test_completions(self):
        body = {"model": "demo", "prompt": "San Francisco is a", "max_tokens": 7, "temperature": 0}
        answer = self.json("/v1/completions", body)
        self.assertEqual(answer["usage"]["completion_tokens"], 7)

    def test_lora_by_name(self):
        body = {"model": "pirate", "prompt": "San Francisco is a", "max_tokens": 7, "temperature": 0}
        self.assertEqual(self.json("/v1/completions", body)["model"], "pirate")

    def test_chat(self):
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Who won the world series in 2020?"},
        ]
        answer = self.json("/v1/chat/completions", {"model": "demo", "messages": messages})
        self.assertEqual(answer["choices"][0]["message"]["role"], "assistant")

    def test_chat_stream(self):
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": "demo", "messages": messages, "stream": True, "max_tokens": 5}
        status, text = self.curl("/v1/chat/completions", body)
        self.assertEqual(status, 200)
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        chunks = [json.loads(event) for event in events[:-1]]
        self.assertEqual({chunk["object"] for chunk in chunks}, {"chat.completion.chunk"})

    def test_structured_outputs(self):
        messages = [{"role": "user", "content": "Classify this sentiment: vLLM is wonderful!"}]
        body = {"model": "demo", "messages": messages}
        choice = {"choice": ["positive", "negative"]}
        answer = self.json("/v1/chat/completions", {**body, "structured_outputs": choice})
        self.assertIn(answer["choices"][0]["message"]["content"], choice["choice"])

    def test_embeddings(self):
        answer = self.json("/v1/embeddings", {"model": "demo", "input": "Hello, my name is"})
        self.assertEqual(len(answer["data"][0]["embedding"]), 256)

    def test_tokenize_and_detokenize(self):
        tokens = self.json("/tokenize", {"model": "demo", "prompt": "Hello"})["tokens"]
        self.assertEqual(self.json("/detokenize", {"model": "demo", "tokens": tokens})["prompt"], "Hello")

    def test_health(self):
        self.assertEqual(self.curl("/health"), (200, ""))

    def test_load_and_unload(self):
        name = {"lora_name": "sql_adapter"}
        body = {**name, "lora_path": str(ADAPTERS / "brief")}
        done = "Success: LoRA adapter 'sql_adapter' {} successfully."
        self.assertEqual(self.curl("/v1/load_lora_adapter", body), (200, done.format("added")))
        status, text = self.curl("/v1/load_lora_adapter", body)
        self.assertEqual((status, json.loads(text)["error"]["type"]), (400, "InvalidUserInput"))
        again = {**body, "lora_path": str(ADAPTERS / "caps"), "load_inplace": True}
        self.assertEqual(self.curl("/v1/load_lora_adapter", again)[0], 200)
        self.assertEqual(self.curl("/v1/unload_lora_adapter", name), (200, done.format("removed")))
        status, text = self.curl("/v1/unload_lora_adapter", name)
        self.assertEqual((status, json.loads(text)["error"]["type"]), (404, "NotFoundError"))


if __name__ == "__main__":
    unittest.main()
