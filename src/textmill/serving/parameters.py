"""The bodies of requests: OpenAI's names, vLLM's further ones, nothing unknown. Touches nothing.

Every setting of `SamplingConfig` may be given under its own name; new ones appear here by themselves.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from textmill.base.errors import UsageError
from textmill.generation.config import OFF, SamplingConfig
from textmill.generation.constraints import ConstraintSpec
from textmill.serving.config import ServeConfig
from textmill.serving.errors import ApiError

STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
UNSUPPORTED = frozenset(
    """suffix best_of tools tool_choice functions function_call parallel_tool_calls audio modalities prediction
    service_tier store metadata reasoning_effort verbosity web_search_options moderation use_beam_search
    length_penalty early_stopping lora lora_request truncate_prompt_tokens documents chat_template
    chat_template_kwargs mm_processor_kwargs priority cache_salt prompt_cache_key safety_identifier
    logits_processors return_tokens_as_token_ids""".split()  # noqa: SIM905
)
"""Parameters that others have and this server does not."""
OWN = frozenset({"logprobs", "echo", "n", "max_tokens", "stop", "logit_bias", "prompt_logprobs"})
"""Settings whose meaning or form is the API's own."""
CHAT_MAX_TOKENS = 512
"""Tokens of an answer when nothing else is said."""


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = STRICT
    include_usage: bool | None = None


class JsonSchema(BaseModel):
    """A schema by name, as in `response_format`."""

    model_config = STRICT
    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class StructuredOutputs(BaseModel):
    """vLLM's way to constrain a text: exactly one of these."""

    model_config = STRICT
    json_: dict[str, Any] | str | bool | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class ResponseFormat(BaseModel):
    """OpenAI's way to constrain a text."""

    model_config = STRICT
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


def _settings() -> dict[str, Any]:
    """Optional fields for all settings of a draw."""
    kinds: dict[str, Any] = {"tuple[int, ...]": list[int], "Texts": list[str], "Ids": list[int]}
    plain: dict[str, Any] = {
        "float": float,
        "int": int,
        "bool": bool,
        "int | None": int,
        "Literal[0, 2]": Literal[0, 2],
    }
    found = {}
    for one in dataclasses.fields(SamplingConfig):
        if one.name not in OWN:
            kind = {**kinds, **plain}[str(one.type)]
            found[one.name] = (kind | None, None)
    return found


class Common(BaseModel):
    """What both endpoints take."""

    model_config = STRICT
    model: str | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None


Settings = create_model("Settings", __base__=Common, **_settings())


class CompletionRequest(Settings):  # type: ignore[misc, valid-type]
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]] = ""
    echo: bool | None = None
    logprobs: int | None = None


class Part(BaseModel):
    """A part of a message; text alone is read."""

    model_config = STRICT
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn."""

    model_config = STRICT
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    @property
    def text(self) -> str:
        """Its words."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Settings):  # type: ignore[misc, valid-type]
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class EmbeddingRequest(BaseModel):
    """POST /v1/embeddings."""

    model_config = STRICT
    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class TokenizeRequest(BaseModel):
    """POST /tokenize."""

    model_config = STRICT
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(BaseModel):
    """POST /detokenize."""

    model_config = STRICT
    model: str | None = None
    tokens: list[int]


class LoadRequest(BaseModel):
    """POST /v1/load_model."""

    model_config = STRICT
    path: str
    name: str = ""


class UnloadRequest(BaseModel):
    """POST /v1/unload_model."""

    model_config = STRICT
    name: str


class LoadAdapterRequest(BaseModel):
    """POST /v1/load_lora_adapter."""

    model_config = STRICT
    lora_name: str = ""
    lora_path: str = ""
    base_model_name: str = ""


class UnloadAdapterRequest(BaseModel):
    """POST /v1/unload_lora_adapter."""

    model_config = STRICT
    lora_name: str = ""
    lora_int_id: int | None = None


def known_parameters(kind: type[BaseModel]) -> list[str]:
    """The names that a body may have."""
    return [field.alias or name for name, field in kind.model_fields.items()]


def sampling_config(asked: Any, limits: ServeConfig, chat: bool) -> SamplingConfig:
    """The settings of a request. The API's defaults are OpenAI's: temperature 1, nothing cut off.

    Raises:
        ApiError: a value is out of range, or beyond what this server allows.
    """
    given = {
        one.name: getattr(asked, one.name)
        for one in dataclasses.fields(SamplingConfig)
        if one.name not in OWN and getattr(asked, one.name) is not None
    }
    given = {"temperature": 1.0, "min_p": 0.0, **given}
    if chat:
        most, longest = asked.max_tokens, asked.max_completion_tokens
        if most is not None and longest is not None and most != longest:
            raise ApiError(400, "max_tokens and max_completion_tokens say different things.", "max_tokens")
        given["max_tokens"] = longest or most or min(CHAT_MAX_TOKENS, limits.max_tokens)
        if asked.top_logprobs is not None and not asked.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true.", "top_logprobs")
        given["logprobs"] = (asked.top_logprobs or 0) if asked.logprobs else None
        given["prompt_logprobs"] = asked.prompt_logprobs
    else:
        given["max_tokens"] = 16 if asked.max_tokens is None else asked.max_tokens
        given["logprobs"] = asked.logprobs
        given["echo"] = bool(asked.echo)
        wanted = asked.prompt_logprobs
        given["prompt_logprobs"] = (
            asked.logprobs if wanted is None and asked.echo and asked.logprobs is not None else wanted
        )
    given["n"] = asked.n or 1
    given["stop"] = tuple([asked.stop] if isinstance(asked.stop, str) else asked.stop or ())
    given["logit_bias"] = asked.logit_bias or {}
    for name, most in (("max_tokens", limits.max_tokens), ("n", limits.max_samples)):
        if given[name] > most:
            raise ApiError(400, f"{name} is {given[name]}; this server allows {most} at most.", name)
    if given["temperature"] == 0:
        # In this API the settings of a draw are part of every request; where nothing is drawn they mean nothing.
        for name, off in OFF.items():
            if name != "n":
                given[name] = off[0]
        for name in ("xtc_threshold", "mirostat_tau", "mirostat_eta"):
            given.pop(name, None)
    elif given.get("mirostat"):
        given.pop("min_p")
    try:
        return SamplingConfig(**given)
    except UsageError as error:
        param = next((one for one in known_parameters(type(asked)) if error.what.startswith(one)), None)
        raise ApiError(400, " ".join(part for part in (error.what, error.why) if part), param) from None


def constraint_spec(asked: Any) -> ConstraintSpec | None:
    """What the text has to follow, however it was said.

    Raises:
        ApiError: two ways at once.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    form = asked.response_format
    if form is not None and form.type == "json_object":
        found.append(("response_format", {"json_object": True}))
    elif form is not None and form.type == "json_schema":
        if form.json_schema is None or form.json_schema.schema_ is None:
            raise ApiError(400, "response_format of type json_schema needs json_schema.schema.", "response_format")
        found.append(("response_format", {"json_schema": form.json_schema.schema_}))
    if asked.structured_outputs is not None:
        given = asked.structured_outputs.model_dump(exclude_none=True)
        given = {
            "json_schema" if name == "json_" else name: value for name, value in given.items() if value is not False
        }
        found.append(("structured_outputs", given))
    for name, own in (("json", "json_schema"), ("regex", "regex"), ("choice", "choice"), ("grammar", "grammar")):
        value = getattr(asked, f"guided_{name}")
        if value is not None:
            found.append((f"guided_{name}", {own: value}))
    if len(found) > 1:
        raise ApiError(400, f"{found[0][0]} and {found[1][0]} say two things at once.", found[1][0])
    if not found:
        return None
    try:
        return ConstraintSpec(**found[0][1])
    except UsageError as error:
        raise ApiError(400, f"{error.what} {error.why}", found[0][0]) from None
