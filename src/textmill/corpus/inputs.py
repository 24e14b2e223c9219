"""From what was typed (paths, folders, globs, "-", `sample:NAME`, `hf:NAME`) to a list of files. Reads folders,
never contents beyond a file's first bytes."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from textmill.base.errors import Failure, UsageError, nearest
from textmill.base.files import hash_file, hash_json
from textmill.base.progress import Progress
from textmill.base.run import RUN_FILE, Run
from textmill.corpus.encoding import looks_binary
from textmill.corpus.formats import BESIDE, DOCUMENTS, LISTED, PACKED, is_code, kind_name, suffixes
from textmill.corpus.licences import licence_of_folder
from textmill.corpus.samples import sample_named
from textmill.corpus.tally import Tally


@dataclass(frozen=True)
class Input:
    """One file to read.

    Attributes:
        origin: the argument that led here, as typed.
        source: the file's name in the corpus.
        path: where it lies.
        size: bytes on disk.
        kind: its suffix without the compression's, lower case, e.g. ".jsonl"; "hf" for a Hugging Face dataset.
        compression: ".gz", ".bz2", ".xz", ".zst" or "".
    """

    origin: str
    source: str
    path: Path
    size: int
    kind: str
    compression: str


def kind_of(path: Path | str) -> tuple[str, str]:
    """The suffix and the compression suffix of a file name: `a.TXT.gz` gives (".txt", ".gz")."""
    return suffixes(str(path))


def _input(origin: str, source: str, path: Path) -> Input:
    return Input(origin, source, path, path.stat().st_size, *kind_of(path))


def _walk(folder: Path, tally: Tally) -> Iterator[Path]:
    """Regular files under `folder`, in sorted order; hidden entries, runs and folders seen before are
    left out."""
    seen: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        tally.problem(str(error.filename), f"cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        here = Path(place)
        status = here.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:  # a symbolic link back to a folder above
            folders.clear()
            continue
        seen.add(identity)
        if RUN_FILE in files and here != folder:
            tally.skipped["files of a run"] += len(files)
            folders.clear()
            continue
        tally.skipped["hidden"] += sum(name.startswith(".") for name in [*folders, *files])
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = here / name
            try:
                mode = path.stat().st_mode
            except OSError as error:
                tally.problem(str(path), f"cannot be read: {error.strerror}")
                continue
            if stat.S_ISREG(mode):
                yield path
            else:
                tally.skipped["not a file"] += 1


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16)


def _folder(origin: str, folder: Path, tally: Tally, progress: Progress) -> Iterator[Input]:
    """Documents of a folder; when it holds none, its other text files (source code, say)."""
    documents: list[Path] = []
    beside: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, tally):
        kind = kind_of(path)[0]
        (documents if kind in DOCUMENTS else beside if kind in BESIDE else others).append(path)
    # JSON, XML and translations are documents among documents; among source code they are a part of it.
    if documents or not any(is_code(kind_name(kind_of(path)[0])) for path in others):
        documents += beside
    else:
        others += beside
    if documents:
        for path in others:
            tally.skipped[f"other type ({kind_of(path)[0] or 'no suffix'})"] += 1
        if others:
            progress.say(
                f"{origin}: {len(documents)} documents taken, {len(others)} files of other types left out "
                f'(name them with a pattern such as "{folder}/**/*{others[0].suffix}" to take them).'
            )
    for path in sorted(documents or others):
        try:
            if not documents and not kind_of(path)[1] and looks_binary(_head(path)):
                tally.skipped["binary"] += 1
                continue
            yield _input(origin, str(path), path)
        except OSError as error:
            tally.problem(str(path), f"cannot be read: {error.strerror}")


def _matches(pattern: str, tally: Tally) -> list[Path]:
    """Files that a pattern names, sorted. `**` walks folders as above, so links in a circle do not trap it."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return [Path(name) for name in sorted(glob.glob(pattern)) if Path(name).is_file()]  # noqa: PTH207
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = Path(*parts[:first])
    wanted = [*parts[first:], "*"] if parts[-1] == "**" else parts[first:]
    regex = re.compile("".join("(?:[^/]+/)*" if part == "**" else _part(part) + "/" for part in wanted))
    if not base.is_dir():
        return []
    return sorted(path for path in _walk(base, tally) if regex.fullmatch(path.relative_to(base).as_posix() + "/"))


def _part(pattern: str) -> str:
    """A regular expression for one part of a pattern: `*` and `?` stay within it."""
    pieces = re.split(r"(\*|\?|\[!?\]?[^\]]*\])", pattern)
    known = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(piece)
        or (f"[{'^' if piece[1] == '!' else ''}{piece[1:-1].lstrip('!')}]" if number % 2 else re.escape(piece))
        for number, piece in enumerate(pieces)
    )


def _missing(name: str) -> UsageError:
    from textmill.corpus.config import MEASURES
    from textmill.corpus.judging.dialects import NAMES

    if name in MEASURES or name in NAMES:
        raise UsageError(
            f"There is no file {name}.",
            "It is the name of a dialect or of a group of measures, and --rules and --measures take one value.",
            "Put commas between several: --measures gopher,c4 or --rules datatrove-gopher,map-cc.",
        )
    parent = Path(name).parent
    try:
        beside = [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []
    except OSError:
        beside = []
    return UsageError(
        f"There is no {name}.{nearest(name, beside)}",
        "It is neither a file nor a folder, and as a pattern it matches nothing.",
        'Give files, folders, patterns such as "texts/*.txt", "-" for standard input, sample:sotu, or hf:NAME.',
    )


def _spool(name: str, run: Run, number: int) -> Path:
    """Copy standard input or a pipe to a file inside the run, in bounded memory."""
    path = run / f".input-{number}"
    with path.open("wb") as out:
        if name == "-":
            if sys.stdin.isatty():
                print("Reading standard input; end it with Ctrl-D.", file=sys.stderr)
            shutil.copyfileobj(sys.stdin.buffer, out, 1 << 20)
        else:
            with Path(name).open("rb") as stream:
                shutil.copyfileobj(stream, out, 1 << 20)
    return path


def find_inputs(names: list[str], run: Run, tally: Tally, progress: Progress) -> tuple[list[Input], dict[str, str]]:
    """Resolve what was typed.

    Returns:
        the files in reading order (the order typed, sorted within a folder or pattern), and what is known of the
        licences, by what was typed.

    Raises:
        UsageError: nothing typed, no such path, unknown sample, or an empty folder.
        Failure: a sample could not be fetched.
    """
    if not names:
        raise UsageError(
            "Nothing to read.", fix="Name files or folders, e.g.: textmill corpus my_texts/ --out runs/mine"
        )
    found: dict[str, Input] = {}
    licences: dict[str, str] = {}
    for number, name in enumerate(names):
        before = len(found)
        path = Path(name)
        if name.startswith("sample:"):
            sample = sample_named(name.removeprefix("sample:"))
            files = sample.files(progress)
            licences[f"sample:{sample.name}"] = sample.licence
            for label, place in files:
                item = _input(name, f"sample:{sample.name}/{label}", place)
                found.setdefault(item.source, item)
            continue
        if name.startswith("hf:"):
            from textmill.corpus.readers.hub import identity

            identity(name)  # an unknown name or a missing package is told now
            found.setdefault(name, Input(name, name, Path(name), 0, "hf", ""))
            continue
        if name == "-" or path.is_fifo():
            item = _input(name, "stdin" if name == "-" else name, _spool(name, run, number))
            found.setdefault(item.source, Input(name, item.source, item.path, item.size, ".txt", ""))
            continue
        if path.is_dir():
            if note := licence_of_folder(path):
                licences[name] = note
            for item in _folder(name, path, tally, progress):
                found.setdefault(item.source, item)
            if len(found) == before and tally.problem_count == 0:
                raise UsageError(
                    f"{name} holds no text." if any(path.iterdir()) else f"{name} is empty.",
                    _skipped(tally) or "No file is in it.",
                    f"Give a folder with {LISTED} ({PACKED}).",
                )
            continue
        if path.is_file():
            item = _input(name, name, path)
            found.setdefault(item.source, item)
            continue
        files_matched = _matches(name, tally) if glob.has_magic(name) else []
        if not files_matched:
            raise _missing(name)
        for match in files_matched:
            item = _input(name, str(match), match)
            found.setdefault(item.source, item)
    return list(found.values()), licences


def _skipped(tally: Tally) -> str:
    parts = [f"{count} {reason}" for reason, count in sorted(tally.skipped.items()) if count]
    return f"Left out: {', '.join(parts)}." if parts else ""


def fingerprint(inputs: list[Input], licences: dict[str, str], progress: Progress) -> dict[str, object]:
    """What the stage is made from: a hash over every file's name and content, with counts for people."""
    total = sum(item.size for item in inputs)
    entries: list[list[str]] = []

    def hash_of(item: Input) -> str:
        if item.kind == "hf":
            from textmill.corpus.readers.hub import identity

            return hash_json(identity(item.source))
        try:
            return hash_file(item.path)
        except OSError:
            return "unreadable"

    if total > 200_000_000:  # a second or so: worth a line
        with progress.task("Checking what changed", total, "B") as task:
            for item in inputs:
                entries.append([item.origin, item.source, hash_of(item)])
                task.advance(item.size)
    else:
        entries = [[item.origin, item.source, hash_of(item)] for item in inputs]
    return {"hash": hash_json([entries, licences]), "files": len(inputs), "bytes": total}


def nothing_read(tally: Tally, text_column: str | None) -> Failure | UsageError:
    """The error for inputs out of which no text at all came."""
    if tally.missing_columns:
        name, columns = next(iter(tally.missing_columns.items()))
        listed = ", ".join(columns[:20]) or "none"
        if text_column is not None:
            return UsageError(
                f'{name} has no column "{text_column}".{nearest(text_column, columns)}',
                f"Its columns: {listed}.",
                "Name one of them with --text-column.",
            )
        return Failure(
            f"Which column of {name} holds the text?",
            f"None has a usual name (text, content, body, …). Its columns: {listed}.",
            f"Name it: --text-column {columns[0] if columns else 'NAME'}",
        )
    first = f" First problem: {tally.problems[0]['source']}: {tally.problems[0]['problem']}." if tally.problems else ""
    return Failure(
        "No readable text was found.",
        (_skipped(tally) + first).strip() or "Every file is empty.",
        f"Give {LISTED} ({PACKED}), or sample:sotu.",
    )
