"""The official openai client against a real server: every endpoint, streams, shapes, errors."""

from __future__ import annotations

import asyncio
import base64
import http.client as http_client
import json
import math
import struct
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving_process import Server

from textmill.generation.config import SamplingConfig
from textmill.generation.loading import open_model
from textmill.generation.native import why_not
from textmill.generation.sampling import generate
from textmill.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def http(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=30)


def test_models_are_listed_with_what_they_can_do(client: openai.OpenAI, runs: dict[str, Path]) -> None:
    cards = {card.id: card.model_dump() for card in client.models.list()}
    assert set(cards) == {"counts", "small", "reader"}
    assert cards["counts"]["writes"]
    assert not cards["reader"]["writes"]
    assert cards["small"]["max_model_len"] == 128
    assert "phrases that sound right" in cards["counts"]["expect"]
    assert "compiled" in cards["small"]["runner"] or why_not(open_model(runs["small"]).model)
    assert client.models.retrieve("small").id == "small"


def test_a_completion_is_what_generate_writes(client: openai.OpenAI, runs: dict[str, Path]) -> None:
    opened = open_model(runs["counts"])
    for settings in ({"temperature": 0}, {"seed": 5, "top_p": 0.9}):
        made = client.completions.create(model="counts", prompt="The people of", max_tokens=20, **settings)
        config = SamplingConfig(**{"temperature": 1.0, "min_p": 0.0, "max_tokens": 20, **settings})
        assert made.choices[0].text == generate(opened.model, opened.tokenizer, ["The people of"], config)[0].text
        assert made.usage is not None
        assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens


def test_a_stream_is_the_same_text_with_usage_at_its_end(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "counts", "prompt": "The people", "max_tokens": 30, "seed": 3, "n": 2}
    whole = client.completions.create(**asked)
    texts, reasons, usage = ["", ""], {}, None
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
        usage = chunk.usage or usage
        assert bool(chunk.choices) != bool(chunk.usage)
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == {0: whole.choices[0].finish_reason, 1: whole.choices[1].finish_reason}
    assert usage == whole.usage


def test_several_prompts_and_token_ids(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    made = client.completions.create(model="counts", prompt=["The people", "天下"], n=2, max_tokens=5, seed=1)
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    ids = [tokenizer.document_begin, *tokenizer.encode("The people")]
    again = client.completions.create(model="counts", prompt=ids, n=2, max_tokens=5, seed=1)
    assert [choice.text for choice in again.choices] == [choice.text for choice in made.choices[:2]]


def test_logprobs_have_the_shape_that_lm_eval_reads(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    # A harness sends token ids, asks for an echo and one token, and reads the prompt's own probabilities.
    ids = [tokenizer.document_begin, *tokenizer.encode("The people of the United States")]
    made = client.completions.create(
        model="counts", prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234
    )  # fmt: skip
    found = made.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    assert found.top_logprobs is not None
    assert len(found.token_logprobs) == len(ids) + 1 == len(found.top_logprobs) == len(found.tokens or ())
    assert found.token_logprobs[0] is None
    assert all(value <= 0 for value in found.token_logprobs[1:])
    assert all(token in tops for token, tops in zip((found.tokens or [])[1:], found.top_logprobs[1:], strict=True))
    text = made.choices[0].text
    assert [text[at : at + len(token)] for at, token in zip(found.text_offset or (), found.tokens or (), strict=True)] \
        == found.tokens  # fmt: skip


def test_a_chat_and_its_stream(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "counts", "messages": [{"role": "user", "content": "My fellow citizens"}], "max_tokens": 12,
        "seed": 1, "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    message, logprobs = whole.choices[0].message, whole.choices[0].logprobs
    assert message.role == "assistant"
    assert logprobs is not None
    assert logprobs.content is not None
    assert b"".join(bytes(one.bytes or ()) for one in logprobs.content).decode("utf-8", "replace") == message.content
    assert all(len(one.top_logprobs) == 3 for one in logprobs.content)
    text, tokens, roles = "", [], []
    for chunk in client.chat.completions.create(**asked, stream=True):
        delta = chunk.choices[0].delta
        text += delta.content or ""
        roles.append(delta.role)
        if chunk.choices[0].logprobs and chunk.choices[0].logprobs.content:
            tokens += [one.token for one in chunk.choices[0].logprobs.content]
    assert text == message.content
    assert tokens == [one.token for one in logprobs.content]
    assert roles[0] == "assistant"
    assert set(roles[1:]) == {None}


def test_the_asynchronous_client_and_many_at_once(server: Server) -> None:
    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def one(seed: int) -> str:
                text = ""
                async for chunk in await client.completions.create(
                    model="small", prompt="We the people", seed=seed % 4, max_tokens=16, stream=True
                ):
                    text += chunk.choices[0].text
                return text

            return await asyncio.gather(*(one(seed) for seed in range(24)))

    texts = asyncio.run(main())
    assert all(texts[i] == texts[i % 4] for i in range(24))  # the same in whatever company
    assert len(set(texts)) == 4


def test_structured_outputs_and_their_refusal(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    chat = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "?"}], response_format=form, max_tokens=40, seed=1
    )
    assert set(json.loads(chat.choices[0].message.content or "")) == {"a"}
    for extra, allowed in (
        ({"structured_outputs": {"choice": ["yes", "no"]}}, {"yes", "no"}),
        ({"guided_regex": "[ab]"}, {"a", "b"}),
    ):
        made = client.completions.create(model="small", prompt="?", extra_body=extra)
        assert made.choices[0].text in allowed
    form["json_schema"]["schema"] = {"type": "array", "uniqueItems": True}
    with pytest.raises(openai.BadRequestError, match="/uniqueItems"):
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "?"}], response_format=form)


def test_embeddings_as_numbers_and_as_base64(client: openai.OpenAI, http: httpx.Client) -> None:
    made = client.embeddings.create(model="reader", input=["We the people", "天下大势"])  # the client asks for base64
    assert [one.index for one in made.data] == [0, 1]
    assert math.hypot(*made.data[0].embedding) == pytest.approx(1.0, abs=1e-5)
    plain = http.post("/v1/embeddings", json={"model": "reader", "input": "We the people"}).json()["data"][0]
    assert plain["embedding"] == pytest.approx(made.data[0].embedding, abs=1e-6)
    coded = http.post(
        "/v1/embeddings", json={"model": "reader", "input": "We the people", "encoding_format": "base64"}
    ).json()  # fmt: skip
    raw = base64.b64decode(coded["data"][0]["embedding"])
    assert struct.unpack(f"<{len(raw) // 4}f", raw) == pytest.approx(plain["embedding"])
    with pytest.raises(openai.BadRequestError, match="gives no embeddings"):
        client.embeddings.create(model="counts", input="a")
    with pytest.raises(openai.BadRequestError, match="writes nothing"):
        client.completions.create(model="reader", prompt="a")


def test_tokens_and_back(http: httpx.Client, tokenizer: Tokenizer) -> None:
    text = "The people 天下 <|end|> é"
    found = http.post("/tokenize", json={"model": "small", "prompt": text, "return_token_strs": True}).json()
    assert found["tokens"] == [tokenizer.document_begin, *tokenizer.encode(text)]
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert tokenizer.document_end not in found["tokens"][1:]  # the text spells it, and it stays text
    back = http.post("/detokenize", json={"model": "small", "tokens": found["tokens"]}).json()
    assert back["prompt"] == text
    info = http.get("/tokenizer_info", params={"model": "small"}).json()
    assert info["eos_token"] == info["bos_token"] == "<|end|>"
    chat = http.post("/tokenize", json={"model": "small", "messages": [{"role": "user", "content": "Hi"}]}).json()
    assert chat["tokens"] == tokenizer.chat([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("body", "status", "told", "param"),
    [
        ({"model": "nothing", "prompt": "a"}, 404, "Served are", "model"),
        ({"model": "../../etc/passwd", "prompt": "a"}, 404, "Served are", "model"),
        ({"model": "smal", "prompt": "a"}, 404, 'Did you mean "small"', "model"),
        ({"prompt": "a"}, 400, "Name a model", "model"),
        ({"model": "small", "promt": "a"}, 400, 'Did you mean "prompt"', "promt"),
        ({"model": "small", "prompt": "a", "tools": []}, 400, "not supported", "tools"),
        ({"model": "small", "prompt": "a", "best_of": 3}, 400, "not supported", "best_of"),
        ({"model": "small", "prompt": "a", "temperature": -1}, 400, "between 0 and", "temperature"),
        ({"model": "small", "prompt": "a", "temperature": "hot"}, 400, "temperature", "temperature"),
        ({"model": "small", "prompt": "a", "max_tokens": 10**9}, 400, "allows", "max_tokens"),
        ({"model": "small", "prompt": "a", "max_tokens": 0}, 400, "at least 1", "max_tokens"),
        ({"model": "small", "prompt": "a", "n": 1000}, 400, "allows", "n"),
        ({"model": "small", "prompt": "a", "logprobs": 5000}, 400, "logprobs", "logprobs"),
        ({"model": "small", "prompt": "a", "logit_bias": {"x": 1.0}}, 400, "bias", None),
        ({"model": "small", "prompt": "a", "stop": [""]}, 400, "stop text is empty", None),
        ({"model": "small", "prompt": "a", "mirostat": 1}, 400, "mirostat", "mirostat"),
        ({"model": "small", "prompt": "a", "dry_base": 2.0}, 400, "no effect", "dry_base"),
        ({"model": "small", "prompt": "a", "stream_options": {}}, 400, "stream: true", "stream_options"),
        ({"model": "small", "prompt": "a", "stop_token_ids": [10**9]}, 400, "Tokens go from", None),
        ({"model": "small", "prompt": []}, 400, "prompt is empty", "prompt"),
        ({"model": "small", "prompt": [10**9]}, 400, "no token", "prompt"),
        ({"model": "small", "prompt": "word " * 500}, 400, "reads 128 at most", "prompt"),
        ({"model": "small", "prompt": {"a": 1}}, 400, "prompt", None),
        ({"model": "small", "prompt": "a", "guided_regex": "(", "guided_choice": ["a"]}, 400, "two things", None),
        ({"model": "small", "prompt": "a", "guided_regex": "("}, 400, "honoured", None),
    ],
)
def test_what_is_wrong_is_said(http: httpx.Client, body: Any, status: int, told: str, param: str | None) -> None:
    answer = http.post("/v1/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, told in error["message"]) == (status, True), error
    assert set(error) == {"message", "type", "param", "code"}
    if param is not None:
        assert error["param"] == param


def test_a_refusal_neither_ends_the_connection_nor_alarms(server: Server) -> None:
    connection = http_client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    before = len(server.log.read_text())
    connection.connect()
    place = connection.sock.getsockname()
    for _ in range(3):  # the engine refuses these, and the routes the others
        for asked in ({"stop_token_ids": [10**9]}, {"prompt": []}, {"temperature": -1}):
            body = json.dumps({"model": "small", "prompt": "a", **asked})
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (400, True)
            assert connection.sock is not None
            assert connection.sock.getsockname() == place
    assert "Traceback" not in server.log.read_text()[before:]


@pytest.mark.parametrize(
    "body", [b"{", b"", b"\xff\xfe", b"[]", b"null", b'"a"', b"[" * 100_000, b'{"model": "small", "prompt": NaN}']
)
def test_bodies_that_are_no_request(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_chat_refuses_what_it_does_not_have(http: httpx.Client) -> None:
    for messages, told in (
        ([], "messages is empty"),
        ([{"role": "tool", "content": "a"}], "role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "content"),
        ([{"role": "user"}], "missing"),
        ("hello", "messages"),
    ):
        answer = http.post("/v1/chat/completions", json={"model": "small", "messages": messages})
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]


def test_half_characters_do_not_break_it(http: httpx.Client) -> None:
    body = rb'{"model": "small", "prompt": "\ud800 a \udfff", "max_tokens": 4, "stop": ["\ud83d"]}'
    answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


def test_unknown_routes_and_methods(http: httpx.Client) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("GET", "/../etc", 404)):
        answer = http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_health_readiness_and_metrics(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json()["ready"]
    http.post("/v1/completions", json={"model": "counts", "prompt": "a", "max_tokens": 3})
    text = http.get("/metrics").text
    for name in ("time_to_first_token_seconds_count", "num_requests_running", "prompt_tokens_total",
                 "generation_tokens_total", "kv_cache_usage_perc", "prefix_cache_hits_total",
                 "request_success_total"):  # fmt: skip
        assert f'vllm:{name}{{model_name="counts"' in text or f"vllm:{name}{{finished_reason" in text, name


def test_a_page_of_another_name_cannot_reach_it(http: httpx.Client) -> None:
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
    assert http.get("/v1/models", headers={"host": "localhost:1234"}).status_code == 200
    assert (
        "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": "https://evil.example"}).headers
    )


def test_audit_lines_hold_no_text(server: Server, http: httpx.Client) -> None:
    http.post("/v1/completions", json={"model": "counts", "prompt": "a secret", "max_tokens": 2, "user": "u1"})
    words = server.process.args
    lines = Path(words[words.index("--audit") + 1]).read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["model"] == "counts"
    assert last["user"] == "u1"
    assert last["completion_tokens"] == 2
    assert not any("secret" in line for line in lines)
