"""schemathesis against the server's own OpenAPI: no request that it can think of makes the server fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving_process import Server

from textmill.serving.parameters import ChatRequest, CompletionRequest, known_parameters

pytest.importorskip("schemathesis")


def test_the_schema_names_every_setting(server: Server) -> None:
    schema = httpx.get(server.url + "/openapi.json").json()
    for name, kind in (("CompletionRequest", CompletionRequest), ("ChatRequest", ChatRequest)):
        assert set(known_parameters(kind)) <= set(schema["components"]["schemas"][name]["properties"])
    assert {"/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models"} <= set(schema["paths"])


@pytest.mark.slow
def test_no_generated_request_makes_the_server_fail(server: Server, tmp_path: object) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json",
        "--checks", "not_a_server_error", "--max-examples", "25", "--max-time", "40", "--seed", "1",
        "--phases", "examples,coverage,fuzzing", "--max-failures", "3",
        "--request-timeout", "20", "--exclude-path-regex", "load_model|metrics", "--no-color",
    ]  # fmt: skip
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=str(tmp_path), timeout=240,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert httpx.get(server.url + "/health").status_code == 200
