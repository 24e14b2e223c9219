"""Which formats are read and what they are called, by a file name's suffix. Touches nothing."""

from __future__ import annotations

import re

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
HTML = frozenset({".html", ".htm", ".xhtml"})
LINES = frozenset({".jsonl", ".ndjson"})
TABLES = frozenset({".csv", ".tsv"})
RECORDS = LINES | TABLES | {".parquet"}
PRINTED = frozenset({".pdf", ".docx", ".epub"})
MAIL = frozenset({".eml", ".mbox"})
SUBTITLES = frozenset({".srt", ".vtt", ".ass", ".ssa"})
ARCHIVES = frozenset({".zip", ".tar"})
COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
DOCUMENTS = PROSE | HTML | RECORDS | PRINTED | MAIL | SUBTITLES | ARCHIVES | {".warc"}
"""Formats that make a folder a folder of documents."""

BESIDE = frozenset({".json", ".ipynb", ".xml", ".po", ".mo"})
"""Formats that are read wherever they are taken, but that also lie about in folders of source code."""

_SHORT = {".tgz": ".gz", ".tbz": ".bz2", ".tbz2": ".bz2", ".txz": ".xz", ".tzst": ".zst"}

_DUMP_PART = re.compile(r"\.xml-p\d+p\d+.*")
"""The parts of a Wikipedia dump end in .xml-p1p41242.bz2, by the pages that they hold."""

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".pyx": "cython", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++",
    ".cxx": "c++", ".hh": "c++", ".hpp": "c++", ".hxx": "c++", ".cu": "cuda", ".cuh": "cuda", ".rs": "rust",
    ".go": "go", ".java": "java", ".kt": "kotlin", ".kts": "kotlin", ".scala": "scala", ".groovy": "groovy",
    ".clj": "clojure", ".cs": "c#", ".fs": "f#", ".vb": "visual-basic", ".js": "javascript", ".mjs": "javascript",
    ".cjs": "javascript", ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".vue": "vue",
    ".svelte": "svelte", ".php": "php", ".rb": "ruby", ".pl": "perl", ".pm": "perl", ".lua": "lua", ".r": "r",
    ".jl": "julia", ".m": "matlab", ".f": "fortran", ".f90": "fortran", ".f95": "fortran", ".swift": "swift",
    ".dart": "dart", ".hs": "haskell", ".ml": "ocaml", ".mli": "ocaml", ".ex": "elixir", ".exs": "elixir",
    ".erl": "erlang", ".hrl": "erlang", ".lisp": "lisp", ".el": "emacs-lisp", ".scm": "scheme", ".rkt": "racket",
    ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".fish": "shell", ".ps1": "powershell", ".bat": "batch",
    ".sql": "sql", ".css": "css", ".scss": "css", ".less": "css", ".asm": "assembly", ".s": "assembly",
    ".v": "verilog", ".sv": "verilog", ".vhd": "vhdl", ".tcl": "tcl", ".awk": "awk", ".vim": "vim", ".nim": "nim",
    ".zig": "zig", ".d": "d", ".pas": "pascal", ".adb": "ada", ".ads": "ada", ".cob": "cobol", ".sol": "solidity",
    ".proto": "protobuf", ".cmake": "cmake", ".mk": "make", ".tf": "terraform", ".tex": "latex", ".yaml": "yaml",
    ".yml": "yaml", ".toml": "toml", ".ini": "ini",
}  # fmt: skip
"""Source code: suffix -> programming language, the `kind` of its documents."""

_KINDS = {
    ".txt": "text", ".text": "text", "": "text", ".md": "markdown", ".markdown": "markdown", ".htm": "html",
    ".xhtml": "html", ".ndjson": "jsonl", ".ssa": "ass", ".ipynb": "notebook",
}  # fmt: skip
_NAMED = DOCUMENTS | BESIDE

_CODE = frozenset(LANGUAGES.values())

LISTED = ".txt, .md, .html, .jsonl, .csv, .parquet, .pdf, .docx, .epub, .xml, .warc, .mbox, .srt or .po files"
"""For messages."""

PACKED = "also .gz, .bz2, .xz, .zst, .zip or .tar"


def suffixes(name: str) -> tuple[str, str]:
    """The suffix and the compression suffix of a file name: `a.TXT.gz` gives (".txt", ".gz")."""
    rest, suffix = _cut(name.lower())
    if suffix in _SHORT:
        return ".tar", _SHORT[suffix]
    if suffix in COMPRESSED:
        return _plain(_cut(rest)[1]), suffix
    return _plain(suffix), ""


def _plain(suffix: str) -> str:
    return ".xml" if _DUMP_PART.fullmatch(suffix) else suffix


def _cut(name: str) -> tuple[str, str]:
    base = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    at = base.rfind(".")
    return (base[:at], base[at:]) if 0 < at < len(base) - 1 else (base, "")


def kind_name(suffix: str) -> str:
    """What documents of such files are called: "text", "html", "jsonl", "pdf", …, or a programming language."""
    if suffix in LANGUAGES:
        return LANGUAGES[suffix]
    return _KINDS.get(suffix) or (suffix[1:] if suffix in _NAMED else "text")


def is_code(kind: str) -> bool:
    """Whether documents of this kind are source code."""
    return kind in _CODE
