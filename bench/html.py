"""HTML to text beside trafilatura and resiliparse: how much of a page's content each finds, and how fast.

`python -m bench.html` reads manuals of Debian packages under `--cache` (see bench/debian_docs.py) and writes nothing.
The gold text of a page is what stands in the element that its generator puts the content into (`CONTAINERS`), without
navigation inside it; no extractor knows these elements. Packages marked as development were looked at while rules were
written; the others are held out. Accuracy is the F1 of word counts (characters, for Chinese), averaged over
the pages of a package, then over packages. Speed is CPU time over the same pages, in interleaved repeats, the
best of each.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from textmill.base.errors import Failure
from textmill.corpus.cleaning.html import html_text

NAVIGATION = (
    ".//script", ".//style", ".//noscript", ".//template",
    ".//*[contains(concat(' ', normalize-space(@class), ' '), ' headerlink ')]",
    *(
        f".//div[contains(concat(' ', normalize-space(@class), ' '), ' {name} ')]"
        for name in ("navheader", "navfooter", "toc", "t-navbar", "header", "top", "toplang", "up", "editsection",
                     "printfooter", "contents")
    ),
    ".//div[@id='toc' or @id='quickview']", ".//span[@class='mark' or contains(@class, 'editsection')]",
)  # fmt: skip
"""Within a container: what is no content, by the names that these generators give it."""


class Container(NamedTuple):
    """Pages of a package and the element that holds their content."""

    pages: str
    path: str
    held_out: bool


_PUBLICAN = "//body/div[@class='section' or @class='chapter']"
CONTAINERS = {
    "apache": Container("doc/apache2-doc/manual/en/**/*.html", "//div[@id='page-content']", False),
    "cmake": Container("doc/cmake-data/html/**/*.html", "//div[@role='main']", False),
    "postgresql": Container("doc/postgresql-doc-15/html/*.html", "//div[@id][not(ancestor::div[@id])]", False),
    "cppreference": Container("cppreference/doc/html/en/**/*.html", "//div[@id='mw-content-text']", False),
    "libreoffice": Container("libreoffice/help/en-US/text/**/*.html", "//div[@id='DisplayArea']", False),
    "libreoffice-zh": Container("libreoffice/help/zh-CN/text/**/*.html", "//div[@id='DisplayArea']", False),
    "linux": Container("doc/linux-doc-6.1/html/**/*.html", "//div[@itemprop='articleBody']", True),
    "python": Container("doc/python3.11/html/**/*.html", "//div[@role='main']", True),
    "django": Container("doc/python-django-doc/html/**/*.html", "//div[@id='yui-main']", True),
    "nodejs": Container("doc/nodejs/api/*.html", "//div[@id='apicontent']", True),
    "erlang": Container("doc/erlang-doc/**/*.html", "//div[@id='content']", False),
    "git": Container("doc/git-doc/**/*.html", "//div[@id='content']", True),
    "handbook": Container("doc/debian-handbook/html/en-US/*.html", _PUBLICAN, False),
    "handbook-zh": Container("doc/debian-handbook/html/zh-CN/*.html", _PUBLICAN, False),
    "ghc": Container("doc/ghc-doc/html/users_guide/*.html", "//div[@itemprop='articleBody']", True),
    "policy": Container("doc/debian-policy/policy.html/*.html", "//div[@role='main']", True),
}  # fmt: skip

WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
LEAST_WORDS = 50


class Page(NamedTuple):
    """A page and the words of its content."""

    package: str
    html: str
    gold: Counter[str]


def gold_words(html: str, path: str) -> Counter[str]:
    """Words of the content, by the container; none where the page has no such element."""
    from lxml import html as lxml_html

    root = lxml_html.document_fromstring(html.encode(), parser=lxml_html.HTMLParser(encoding="utf-8"))
    found: Counter[str] = Counter()
    for container in root.xpath(path):
        for inner in NAVIGATION:
            for element in container.xpath(inner):
                if element.getparent() is not None:
                    element.drop_tree()
        for text in container.itertext():
            found.update(WORD.findall(text.lower()))
    return found


def pages(tree: Path, count: int) -> list[Page]:
    """`count` pages of each package, drawn by the hash of their paths.

    Raises:
        Failure: none of the packages is there.
    """
    found = []
    for package, container in CONTAINERS.items():
        paths = [path for path in (tree / "usr/share").glob(container.pages) if path.is_file()]
        paths.sort(key=lambda path: hashlib.sha256(path.relative_to(tree).as_posix().encode()).digest())
        taken = 0
        for path in paths:
            html = path.read_bytes().decode("utf-8", "replace")
            gold = gold_words(html, container.path)
            if sum(gold.values()) < LEAST_WORDS:
                continue
            found.append(Page(package, html, gold))
            taken += 1
            if taken == count:
                break
    if not found:
        raise Failure(
            "No pages to measure.",
            f"No manual of {', '.join(CONTAINERS)} lies under {tree}.",
            "Make the benchmark corpus first: python -m bench.debian_docs",
        )
    return found


def score(text: str, gold: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of word counts; nothing extracted is nothing wrong."""
    words = Counter(WORD.findall(text.lower()))
    common = sum((words & gold).values())
    precision = common / sum(words.values()) if words else 1.0
    recall = common / max(1, sum(gold.values()))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def extractors() -> dict[str, Callable[[str], str]]:
    """What is compared."""
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    return {
        "textmill fast": lambda page: html_text(page, "fast"),
        "textmill precise": lambda page: html_text(page, "precise"),
        "textmill none": lambda page: html_text(page, "none"),
        "resiliparse main": lambda page: str(extract_plain_text(page, main_content=True)),
        "resiliparse plain": lambda page: str(extract_plain_text(page)),
        "trafilatura": lambda page: trafilatura.extract(page) or "",
        "trafilatura fast": lambda page: trafilatura.extract(page, fast=True) or "",
        "trafilatura precision": lambda page: trafilatura.extract(page, favor_precision=True) or "",
    }


def measure(found: list[Page], repeats: int, names: list[str]) -> dict[str, Any]:
    """Accuracy by package and speed of each extractor."""
    size = sum(len(page.html.encode()) for page in found)
    chosen = {name: extract for name, extract in extractors().items() if not names or name in names}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    texts: dict[str, list[str]] = {}
    for _ in range(repeats):
        for name, extract in chosen.items():
            start = time.process_time()
            texts[name] = [extract(page.html) for page in found]
            seconds[name].append(time.process_time() - start)
    result: dict[str, Any] = {}
    for name in chosen:
        by_package: dict[str, list[tuple[float, float, float]]] = {}
        for page, text in zip(found, texts[name], strict=True):
            by_package.setdefault(page.package, []).append(score(text, page.gold))
        means = {
            package: [statistics.mean(column) for column in zip(*scores, strict=True)]
            for package, scores in by_package.items()
        }
        groups = {"held out": True, "development": False}
        result[name] = {
            "MB/s": size / 1e6 / min(seconds[name]),
            "seconds": seconds[name],
            "f1": {package: round(mean[2], 4) for package, mean in means.items()},
            **{
                group: dict(zip(("precision", "recall", "f1"), _mean(means, held), strict=True))
                for group, held in groups.items()
            },
        }
    return result


def _mean(means: dict[str, list[float]], held_out: bool) -> list[float]:
    chosen = [mean for package, mean in means.items() if CONTAINERS[package].held_out == held_out]
    return [round(statistics.mean(column), 4) for column in zip(*chosen, strict=True)] if chosen else [0.0] * 3


def main() -> None:
    """Print the table, or with --json everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.html", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("/tmp/debs"), help="folder of the packages")
    parser.add_argument("--pages", type=int, default=40, help="pages of each package")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="name of an extractor; may be repeated")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = pages(asked.cache / "x", asked.pages)
    result = measure(found, asked.repeats, asked.only)
    versions = {name: importlib.metadata.version(name) for name in ("textmill", "resiliparse", "trafilatura", "lxml")}
    size = sum(len(page.html) for page in found) / 1e6
    facts = {"pages": len(found), "megabytes": round(size, 1), "python": platform.python_version(), **versions}
    if asked.json:
        print(json.dumps({"facts": facts, "extractors": result}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'':24}{'held out':>27}{'development':>27}")
    print(f"{'':24}{'precision':>9}{'recall':>9}{'F1':>9}{'precision':>9}{'recall':>9}{'F1':>9}{'MB/s':>9}")
    for name, row in result.items():
        cells = [
            row[group][figure] for group in ("held out", "development") for figure in ("precision", "recall", "f1")
        ]
        print(f"{name:24}" + "".join(f"{cell:9.3f}" for cell in cells) + f"{row['MB/s']:9.1f}")
    print("\nF1 by package (* held out)")
    for package, container in CONTAINERS.items():
        figures = "  ".join(f"{row['f1'].get(package, float('nan')):.3f}" for row in result.values())
        print(f"{package + (' *' if container.held_out else ''):16} {figures}")


if __name__ == "__main__":
    main()
