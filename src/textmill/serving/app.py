"""The FastAPI application: routes, who may use them, errors in one shape.

Annotations are evaluated at once in this file (no `__future__` import): FastAPI reads those of functions inside others.
"""

import asyncio
import base64
import logging
import struct
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException

from textmill import __version__
from textmill.base.errors import TextmillError, nearest
from textmill.serving.audit import Audit
from textmill.serving.config import LOOPBACK, ServeConfig
from textmill.serving.errors import ApiError, from_exception
from textmill.serving.guards import Guard
from textmill.serving.keys import ANYONE, Key, KeyStore
from textmill.serving.library import Library, Served
from textmill.serving.parameters import (
    UNSUPPORTED,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    LoadAdapterRequest,
    LoadRequest,
    TokenizeRequest,
    UnloadAdapterRequest,
    UnloadRequest,
    known_parameters,
)
from textmill.serving.viewing import add_page
from textmill.serving.writing import Work, begin, encode, pieces, token_text, whole

LOG = logging.getLogger("textmill.serving")


class Service:
    """What the routes share.

    Args:
        library: the models.
        keys: the store of keys.
        config: the server's settings.
        replica: whether others serve the same models beside this one.
    """

    def __init__(self, library: Library, keys: KeyStore, config: ServeConfig, replica: bool = False) -> None:
        self.library, self.keys, self.config, self.replica = library, keys, config, replica
        self.audit = Audit(config.audit, config.log_prompts)
        self.ready = True
        self._checked, self._needed = -1.0, True

    async def needs_key(self) -> bool:
        """Whether callers need a key: always off this machine, and once there is one."""
        if self.config.require_key or not self.config.local:
            return True
        if time.monotonic() - self._checked > 2.0:
            self._needed = not await asyncio.to_thread(self.keys.empty)
            self._checked = time.monotonic()
        return self._needed

    async def caller(self, request: Request) -> Key:
        """Whose request it is.

        Raises:
            ApiError: no key, a wrong one (401).
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if not await self.needs_key():
            return ANYONE
        if scheme.lower() != "bearer" or not given.strip():
            raise ApiError(
                401,
                "A key is needed: send the header Authorization: Bearer KEY. Its owner makes one with: "
                "textmill keys create NAME",
                code="key_missing",
                headers={"WWW-Authenticate": "Bearer"},
            )
        key = await asyncio.to_thread(self.keys.find, given.strip())
        if key is None:
            raise ApiError(
                401, "This key is not valid.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        request.state.key = key
        return key

    async def allowed(self, key: Key) -> int | None:
        """Count the request against the key's limits; tokens that it has left today.

        Raises:
            ApiError: over its limit (429).
        """
        wait = await asyncio.to_thread(self.keys.take, key)
        if wait > 0:
            raise ApiError(
                429,
                f"Your key allows {key.requests_per_minute} requests a minute; the next in {wait:.0f} s.",
                code="requests_per_minute",
                headers={"Retry-After": str(max(1, round(wait)))},
            )
        if key.tokens_per_day is None:
            return None
        left = await asyncio.to_thread(self.keys.tokens_left, key)
        if left is not None and left <= 0:
            raise ApiError(
                429,
                f"Your key's {key.tokens_per_day} tokens of today are used up (until midnight UTC).",
                code="tokens_per_day",
                headers={"Retry-After": str(86400 - int(time.time()) % 86400)},
            )
        return left

    async def done(self, work: Work, key: Key, route: str, asked: Any) -> None:
        """Put a finished request on record."""
        await asyncio.to_thread(self.keys.record, key, work.prompt_tokens, work.completion_tokens)
        self.audit.write(
            key=key.name, route=route, model=work.served.name, **work.usage, ended=work.ended or "disconnected",
            user=asked.user, prompt=[work.served.tokenizer.decode(ids) for ids in work.prompts], answers=work.answers,
        )  # fmt: skip


def make_app(library: Library, keys: KeyStore, config: ServeConfig, replica: bool = False) -> Any:
    """The application, its guard around it.

    Args:
        library: the models that it serves.
        keys: who may use it.
        config: limits and addresses.
        replica: whether others serve the same models beside this one.

    Returns:
        an ASGI application; `.service` is what its routes share.
    """
    service = Service(library, keys, config, replica)
    app = FastAPI(title="Textmill", version=__version__, docs_url=None, redoc_url=None)
    _handlers(app)
    _health(app, service)
    _models(app, service)
    _texts(app, service)
    _tokens(app, service)
    add_page(app, library, service.caller)
    if config.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(config.cors), allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )  # fmt: skip
    hosts = {*LOOPBACK, config.host.lower(), *(name.lower() for name in config.allowed_hosts)}
    guard: Any = Guard(app, hosts if config.local or config.allowed_hosts else None, config.max_request_bytes, library.metrics)  # fmt: skip  # noqa: E501
    guard.service, guard.api = service, app
    return guard


# ---- errors --------------------------------------------------------------------------------------------------------


def _reply(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, headers=error.headers)


def _handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> JSONResponse:
        return _reply(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return _reply(_explain(request, error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        told = {
            404: f"There is nothing at {request.url.path[:200]}.",
            405: f"{request.url.path[:200]} does not take {request.method}.",
            400: "The body of the request cannot be read: it has to be JSON in UTF-8.",
        }
        return _reply(ApiError(error.status_code, told.get(error.status_code, str(error.detail)), headers=dict(error.headers or {})))  # fmt: skip  # noqa: E501

    # Of its own: what only the handler of all exceptions answers is raised on all the same, and ends the connection.
    @app.exception_handler(TextmillError)
    async def refused(_: Request, error: TextmillError) -> JSONResponse:
        return _reply(from_exception(error))

    @app.exception_handler(Exception)
    async def other(_: Request, error: Exception) -> JSONResponse:
        LOG.error("a request failed", exc_info=error)
        return _reply(from_exception(error))


def _explain(request: Request, error: RequestValidationError) -> ApiError:
    """The first fault of a body in words."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    # Unions add the names of their types to the place of a fault.
    path = ".".join(part for part in place if part.isidentifier() or part.isdecimal())
    kind = first["type"]
    if kind == "json_invalid":
        return ApiError(400, f"The body is not JSON: {first.get('ctx', {}).get('error', 'malformed')}.", code="json")
    if kind == "extra_forbidden":
        name = place[-1]
        if name in UNSUPPORTED:
            return ApiError(400, f'"{name}" is not supported by this server.', path, "unsupported_parameter")
        dependant = getattr(request.scope.get("route"), "dependant", None)
        bodies = [field.field_info.annotation for field in dependant.body_params] if dependant else []
        known = [one for body in bodies for one in known_parameters(body)]
        return ApiError(400, f'Unknown parameter "{name[:100]}".{nearest(name, known)}', path, "unknown_parameter")
    if kind == "missing":
        return ApiError(400, f'"{path or "body"}" is missing.', path or None, "missing_parameter")
    return ApiError(400, f'"{path or "body"}": {first["msg"]}.', path or None, "wrong_type")


# ---- routes --------------------------------------------------------------------------------------------------------


def _health(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Whether models are served and new requests welcome."""
        models = [one.name for one in service.library.all()]
        good = service.ready and bool(models)
        return JSONResponse({"ready": good, "models": models}, 200 if good else 503)

    @app.get("/metrics")
    async def metrics(key: Annotated[Key, Depends(service.caller)]) -> PlainTextResponse:
        """Prometheus metrics."""
        text = await asyncio.to_thread(service.library.metrics.text)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _card(served: Served) -> dict[str, Any]:
    card = {
        "id": served.name, "object": "model", "created": served.created, "owned_by": "textmill",
        "family": served.family, "max_model_len": served.context, "writes": served.engine is not None,
        "embeds": served.encoder is not None, "answers": bool(served.opened and served.opened.chat),
        "expect": served.expect, "run": served.run is not None,
    }  # fmt: skip
    if served.engine is not None:
        card["runner"] = served.engine.stats().runner  # how it is read, and with which weights
    if served.adapter is not None:
        # What it costs: the matrices of its own in float32; the compiled pass packs them once more. And a cache.
        card |= {
            "root": str(served.path), "parent": served.base, "rank": served.adapter.rank,
            "matrices": served.adapter.matrices, "matrices_bytes": served.adapter.bytes,
        }  # fmt: skip
    return card


def _models(app: FastAPI, service: Service) -> None:
    library = service.library

    @app.get("/v1/models")
    async def models(key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """The models that are served."""
        return {"object": "list", "data": [_card(one) for one in library.all()]}

    @app.get("/v1/models/{name}")
    async def model(name: str, key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """One of them."""
        return _card(library.get(name))

    def administrator(key: Key) -> None:
        if not key.admin:
            raise ApiError(403, "This key is no administrator's.", code="not_admin")
        if service.replica:  # one of several would change, and the others answer for it
            raise ApiError(
                501,
                "Replicas serve the models that they began with: start the server anew with others, or without "
                "--engine ray.",
                code="replicas",
            )

    @app.post("/v1/load_model")
    async def load(asked: LoadRequest, key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """Serve one more model, from a run or model folder on the server."""
        administrator(key)
        return _card(await asyncio.to_thread(library.load, asked.path, asked.name))

    @app.post("/v1/unload_model")
    async def unload(asked: UnloadRequest, key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """Stop serving a model, after it has finished what it is writing."""
        administrator(key)
        await library.unload(asked.name, service.config.drain_seconds)
        return {"id": asked.name, "object": "model", "deleted": True}

    # The routes, fields and first texts are vLLM's, whose clients look for them.
    @app.post("/v1/load_lora_adapter", response_class=PlainTextResponse)
    async def load_adapter(
        asked: LoadAdapterRequest, key: Annotated[Key, Depends(service.caller)]
    ) -> PlainTextResponse:
        """Serve a model as a LoRA adapter, a folder on the server, makes it."""
        administrator(key)
        if not asked.lora_name or not asked.lora_path:
            raise ApiError(400, "Both 'lora_name' and 'lora_path' must be provided.", code="missing_parameter")
        await asyncio.to_thread(library.load_adapter, asked.lora_name, asked.lora_path, asked.base_model_name)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", response_class=PlainTextResponse)
    async def unload_adapter(
        asked: UnloadAdapterRequest, key: Annotated[Key, Depends(service.caller)]
    ) -> PlainTextResponse:
        """Stop serving an adapter, after it has finished what it is writing."""
        administrator(key)
        if not asked.lora_name:
            raise ApiError(400, "'lora_name' needs to be provided to unload a LoRA adapter.", "lora_name")
        if asked.lora_name not in {one.name for one in library.all() if one.base}:
            raise ApiError(
                404, f"The lora adapter '{asked.lora_name[:100]}' cannot be found.", "lora_name", "model_not_found"
            )
        await library.unload(asked.lora_name, service.config.drain_seconds)
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")


def _texts(app: FastAPI, service: Service) -> None:
    async def answer(request: Request, asked: Any, key: Key) -> Any:
        if not service.ready:
            raise ApiError(503, "The server is about to end.", code="closing", headers={"Retry-After": "5"})
        served = service.library.get(asked.model)
        left = await service.allowed(key)
        work = await begin(asked, served, key, left, service.config)
        route = request.url.path
        note = {"X-Textmill-Note": served.expect.encode("ascii", "replace").decode()} if served.expect else {}
        if work.stream:

            async def body() -> AsyncIterator[bytes]:
                try:
                    async for piece in pieces(work):
                        yield piece
                finally:
                    work.cancel()
                    await asyncio.shield(service.done(work, key, route, asked))

            return StreamingResponse(
                body(), media_type="text/event-stream", headers={"Cache-Control": "no-store", **note}
            )
        try:
            found = await _while_connected(request, work)
        finally:
            work.cancel()
            await asyncio.shield(service.done(work, key, route, asked))
        return JSONResponse(found, headers=note)

    @app.post("/v1/completions", response_model=None)
    async def completions(request: Request, asked: CompletionRequest, key: Annotated[Key, Depends(service.caller)]) -> Any:  # fmt: skip  # noqa: E501
        """Continue prompts."""
        return await answer(request, asked, key)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request, asked: ChatRequest, key: Annotated[Key, Depends(service.caller)]) -> Any:
        """Answer a conversation (a base model continues it)."""
        return await answer(request, asked, key)


async def _while_connected(request: Request, work: Work) -> dict[str, Any]:
    """The whole answer; cancelled when the caller hangs up."""
    writing = asyncio.create_task(whole(work))
    while not writing.done():
        await asyncio.wait({writing}, timeout=0.5)
        if not writing.done() and await request.is_disconnected():
            work.cancel()
    return await writing


def _tokens(app: FastAPI, service: Service) -> None:
    library = service.library

    @app.post("/v1/embeddings")
    async def embeddings(asked: EmbeddingRequest, key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """Texts to vectors, with an encoder."""
        served = library.get(asked.model)
        if served.encoder is None:
            raise ApiError(400, f"The model {served.name} ({served.family}) gives no embeddings; a BERT does.", "model")
        left = await service.allowed(key)
        model, tokenizer = served.encoder
        if asked.dimensions is not None and asked.dimensions != model.config.width:
            raise ApiError(400, f"This model's vectors have {model.config.width} dimensions.", "dimensions")
        given: Any = asked.input
        given = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given
        if not given or any(not one for one in given):
            raise ApiError(400, "input is empty.", "input")
        for ids in given:
            if not isinstance(ids, str) and any(not 0 <= token < tokenizer.vocabulary for token in ids):
                raise ApiError(400, f"Token ids end at {tokenizer.vocabulary - 1}.", "input")
        texts = [one.encode("utf-8", "replace").decode() if isinstance(one, str) else tokenizer.decode(one) for one in given]  # fmt: skip  # noqa: E501
        from textmill.models.bert.embeddings import embed_texts

        def compute() -> Any:
            with served.lock:
                return embed_texts(model, tokenizer, texts)

        found = await asyncio.to_thread(compute)
        count = int(found.tokens.sum())
        if left is not None and count > left:
            raise ApiError(429, f"This takes {count} tokens; your key has {left} left today.", code="tokens_per_day")
        await asyncio.to_thread(service.keys.record, key, count, 0)

        def shape(vector: Any) -> Any:
            if asked.encoding_format == "base64":
                return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector.tolist())).decode()
            return vector.tolist()

        data = [{"object": "embedding", "index": i, "embedding": shape(v)} for i, v in enumerate(found.vectors)]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": served.name, "usage": usage}

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeRequest, key: Annotated[Key, Depends(service.caller)]) -> dict[str, Any]:
        """A text, or a conversation, to token ids."""
        served = library.get(asked.model)
        tokenizer = served.tokenizer
        if (asked.prompt is None) == (asked.messages is None):
            raise ApiError(400, "Give either prompt or messages.", "prompt")
        if asked.prompt is not None:
            ids = await asyncio.to_thread(encode, tokenizer, asked.prompt)
            if asked.add_special_tokens is not False:
                ids = [tokenizer.document_begin, *ids]
        else:
            turns = [{"role": one.role, "content": one.text} for one in asked.messages or ()]
            ids = tokenizer.chat(turns)
        strings = [token_text(tokenizer, token) for token in ids] if asked.return_token_strs else None
        return {"tokens": ids, "count": len(ids), "max_model_len": served.context, "token_strs": strings}

    @app.post("/detokenize")
    async def detokenize(asked: DetokenizeRequest, key: Annotated[Key, Depends(service.caller)]) -> dict[str, str]:
        """Token ids to the text that they stand for."""
        tokenizer = library.get(asked.model).tokenizer
        wrong = [token for token in asked.tokens if not 0 <= token < tokenizer.vocabulary]
        if wrong:
            raise ApiError(400, f"There is no token {wrong[0]}; ids end at {tokenizer.vocabulary - 1}.", "tokens")
        return {"prompt": tokenizer.decode(asked.tokens)}

    @app.get("/tokenizer_info")
    async def tokenizer_info(
        key: Annotated[Key, Depends(service.caller)], model: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """What a client has to know of the tokenizer."""
        tokenizer = library.get(model).tokenizer
        names = {token: name for name, token in tokenizer.special.items()}
        return {
            "tokenizer_class": type(tokenizer).__name__, "kind": tokenizer.kind, "vocab_size": tokenizer.vocabulary,
            "bos_token": names[tokenizer.document_begin], "eos_token": names[tokenizer.document_end],
            "special_tokens": tokenizer.special, "turn_end_ids": list(tokenizer.turn_ends),
            "chat_template": (tokenizer.imported or {}).get("chat_template"),
        }  # fmt: skip
