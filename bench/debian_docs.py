"""The benchmark corpus: the HTML manuals of Debian packages as text. Reads packages from `--cache`, writes `--out`.

`python -m bench.debian_docs` writes `en.jsonl` (221 MB of text) and `zh.jsonl` (10 MB), one document a page with
the fields `id`, `text` and `source` (the package), and `manifest.json`: versions of the packages and SHA-256 of both
files. Pages become text with resiliparse, navigation and all, as crawled text is before anyone cleaned it. The order
is that of the SHA-256 of each page's path, so the first N megabytes are a fair sample of the whole. Packages that are
not unpacked under CACHE/x are fetched with `apt-get download`, which needs Debian or Ubuntu; nothing is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from textmill.base.errors import Failure, UsageError

PACKAGES = {
    "apache2-doc": ("usr/share/doc/apache2-doc",),
    "cmake-doc": ("usr/share/doc/cmake-data",),
    "cppreference-doc-en-html": ("usr/share/cppreference",),
    "debian-handbook": ("usr/share/doc/debian-handbook",),
    "debian-policy": ("usr/share/doc/debian-policy",),
    "debian-reference-en": ("usr/share/debian-reference",),
    "debian-reference-zh-cn": (),
    "developers-reference": ("usr/share/developers-reference",),
    "erlang-doc": ("usr/share/doc/erlang-doc",),
    "ghc-doc": ("usr/share/doc/ghc-doc",),
    "git-doc": ("usr/share/doc/git-doc", "usr/share/doc/git"),
    "gnuplot-doc": ("usr/share/doc/gnuplot", "usr/share/doc/gnuplot-doc"),
    "libreoffice-help-en-us": ("usr/share/libreoffice/help",),
    "libreoffice-help-zh-cn": (),
    "linux-doc-6.1": ("usr/share/doc/linux-doc-6.1",),
    "nodejs-doc": ("usr/share/doc/nodejs",),
    "octave-doc": ("usr/share/doc/octave",),
    "postgresql-doc-15": ("usr/share/doc/postgresql-doc-15",),
    "python-django-doc": ("usr/share/doc/python-django-doc",),
    "python3.11-doc": ("usr/share/doc/python3.11",),
    "sqlite3-doc": ("usr/share/doc/sqlite3", "usr/share/doc/sqlite3-doc"),
}
"""Package -> folders that hold its pages; empty where it shares those of the package before it."""

CHINESE = re.compile(r"(^|[/._-])zh[-_](cn|tw|hans|hant)([/._-]|$)", re.IGNORECASE)
"""In a path: this page is Chinese."""

FOREIGN = re.compile(
    r"/translations/(?!zh)|/debian-handbook/html/(?!en-US|zh-)|"
    r"/apache2-doc/manual/(?!en/|zh-cn/)[a-z]{2}(-[a-z]{2})?/|\.html\.(?!en\b|zh)[a-z]{2}\b",
    re.IGNORECASE,
)
"""In a path: this page is in a language that is neither English nor Chinese."""

LANGUAGES = ("en", "zh")


class Page(NamedTuple):
    """One HTML file: its path below the unpacked tree, its package and its language."""

    path: str
    package: str
    language: str


def fetch(cache: Path) -> dict[str, str]:
    """Download and unpack what is missing; returns package -> version.

    Raises:
        Failure: apt-get or dpkg is not there, or a package cannot be had.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not list(cache.glob(f"{name}_*.deb"))]
    if missing:
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise Failure(
                "The benchmark corpus cannot be made here.",
                "Its packages are fetched with apt-get and unpacked with dpkg, and one of them is not installed.",
                "Run this on Debian or Ubuntu, or copy en.jsonl and zh.jsonl from a machine that made them.",
            )
        asked = subprocess.run(["apt-get", "download", *missing], cwd=cache, capture_output=True, text=True)
        if asked.returncode:
            raise Failure(
                f"apt-get could not download {', '.join(missing)}.",
                asked.stderr.strip().splitlines()[-1] if asked.stderr.strip() else "",
                "The packages are those of Debian 12 (bookworm), section main; try: apt-get update",
            )
    tree = cache / "x"
    for name, folders in PACKAGES.items():
        if name in missing or not all((tree / folder).exists() for folder in folders):
            (archive,) = sorted(cache.glob(f"{name}_*.deb"))[-1:]
            subprocess.run(["dpkg", "-x", str(archive), str(tree)], check=True)
    return {name: sorted(cache.glob(f"{name}_*.deb"))[-1].name.split("_")[1].replace("%3a", ":") for name in PACKAGES}


def pages(tree: Path) -> list[Page]:
    """Every English and Chinese page of the packages, in the corpus's order."""
    found = []
    for package, folders in PACKAGES.items():
        for folder in folders:
            for path in (tree / folder).rglob("*.html*"):
                name = path.relative_to(tree).as_posix()
                if path.is_symlink() or not path.is_file() or path.suffix in {".gz", ".css", ".js"}:
                    continue
                if CHINESE.search(name):
                    found.append(Page(name, package, "zh"))
                elif not FOREIGN.search(f"/{name}"):
                    found.append(Page(name, package, "en"))
    return sorted(set(found), key=lambda page: (hashlib.sha256(page.path.encode()).digest(), page.path))


def text_of(path: Path) -> str:
    """A page's visible text, navigation included."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    raw = path.read_bytes()
    try:
        page = raw.decode("utf-8")
    except UnicodeDecodeError:
        page = bytes_to_str(raw, detect_encoding(raw) or "latin-1")
    text: str = extract_plain_text(page)
    return text.encode("utf-8", "replace").decode("utf-8")


def _lines(task: tuple[str, list[Page]]) -> list[tuple[str, bytes]]:
    """(language, JSON line) of each page that has text."""
    tree, part = Path(task[0]), task[1]
    lines = []
    for page in part:
        text = text_of(tree / page.path)
        if text.strip():
            row = {"id": page.path, "text": text, "source": page.package}
            lines.append((page.language, json.dumps(row, ensure_ascii=False).encode() + b"\n"))
    return lines


def _extracted(tree: Path, found: list[Page], workers: int) -> Iterator[tuple[str, bytes]]:
    tasks = [(str(tree), found[start : start + 500]) for start in range(0, len(found), 500)]
    with ProcessPoolExecutor(workers) as pool:
        for lines in pool.map(_lines, tasks):
            yield from lines


def make(cache: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    """Write `en.jsonl`, `zh.jsonl` and `manifest.json` to `out`; returns the manifest.

    Whole files appear or none: they are written beside and renamed.
    """
    versions = fetch(cache)
    tree = cache / "x"
    out.mkdir(parents=True, exist_ok=True)
    found = pages(tree)
    digests = {language: hashlib.sha256() for language in LANGUAGES}
    documents = dict.fromkeys(LANGUAGES, 0)
    sizes = dict.fromkeys(LANGUAGES, 0)
    files = {language: (out / f"{language}.jsonl.partial").open("wb") for language in LANGUAGES}
    for language, line in _extracted(tree, found, workers):
        files[language].write(line)
        digests[language].update(line)
        documents[language] += 1
        sizes[language] += len(line)
    for language, file in files.items():
        file.close()
        Path(file.name).rename(out / f"{language}.jsonl")
    manifest = {
        "packages": versions,
        "files": {
            f"{language}.jsonl": {
                "documents": documents[language],
                "bytes": sizes[language],
                "sha256": digests[language].hexdigest(),
            }
            for language in LANGUAGES
        },
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def corpus(out: Path = Path("/tmp/bench-corpus"), language: str = "en") -> Path:
    """The corpus's file of one language, for the other benchmarks.

    Raises:
        UsageError: it has not been made.
    """
    path = out / f"{language}.jsonl"
    if not path.exists():
        raise UsageError(f'No benchmark corpus at "{path}".', fix=f"Make it: python -m bench.debian_docs --out {out}")
    return path


def main() -> None:
    """Make the corpus and print its manifest."""
    parser = argparse.ArgumentParser(prog="python -m bench.debian_docs", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/debs"), help="folder of the packages")
    parser.add_argument("--out", type=Path, default=Path("/tmp/bench-corpus"), help="folder of the corpus")
    parser.add_argument("--workers", type=int, default=1, help="processes that extract text")
    parser.add_argument("--html", action="store_true", help="also write html.txt, the paths of the pages, in order")
    asked = parser.parse_args()
    manifest = make(asked.cache, asked.out, asked.workers)
    if asked.html:
        tree = (asked.cache / "x").resolve()
        lines = "".join(f"{page.language}\t{tree / page.path}\n" for page in pages(tree))
        (asked.out / "html.txt").write_text(lines)
    print(json.dumps(manifest, indent=2))


if __name__ == "__main__":
    main()
