"""Licence notes: what a folder's licence file and the records themselves say about their terms. Reads licence files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.compute as pc

_FILE = re.compile(r"(licen[cs]e|copying|copyright)([-_.].*)?", re.I)
_KNOWN: tuple[tuple[str, str], ...] = (
    (r"Apache License\W+Version 2\.0", "Apache-2.0"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\W+Version 3", "AGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\W+Version 3", "LGPL-3.0"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\W+Version 2\.1", "LGPL-2.1"),
    (r"GNU GENERAL PUBLIC LICENSE\W+Version 3", "GPL-3.0"),
    (r"GNU GENERAL PUBLIC LICENSE\W+Version 2", "GPL-2.0"),
    (r"GNU Free Documentation License", "GFDL"),
    (r"Mozilla Public License,?\W+(Version|v\.)\W*2\.0", "MPL-2.0"),
    (r"CC0 1\.0 Universal|publicdomain/zero/1\.0", "CC0-1.0"),
    (r"Attribution-NonCommercial-NoDerivatives 4\.0", "CC-BY-NC-ND-4.0"),
    (r"Attribution-NonCommercial-ShareAlike 4\.0", "CC-BY-NC-SA-4.0"),
    (r"Attribution-NonCommercial 4\.0", "CC-BY-NC-4.0"),
    (r"Attribution-ShareAlike 4\.0", "CC-BY-SA-4.0"),
    (r"Attribution-ShareAlike 3\.0", "CC-BY-SA-3.0"),
    (r"Attribution 4\.0 International", "CC-BY-4.0"),
    (r"Permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"Redistribution and use in source and binary forms", "BSD"),
    (r"Permission to use, copy, modify, and(/or)? distribute this software", "ISC"),
    (r"This is free and unencumbered software released into the public domain", "Unlicense"),
)
_KEYS = ("license", "licence", "licenses", "license_type", "rights")
_HEAD = 64 << 10
_SHOWN = 80
_MOST = 5


def licence_of_folder(folder: Path) -> str:
    """What the licence files directly in a folder say, such as "MIT (LICENSE)"; "" without any.

    A text that is none of the usual ones is shown by its first line. Broken links and unreadable files are passed over.
    """
    found = []
    try:
        files = sorted(path for path in folder.iterdir() if _FILE.fullmatch(path.name) and path.is_file())
    except OSError:
        return ""
    for path in files[:_MOST]:
        try:
            with path.open("rb") as stream:
                text = stream.read(_HEAD).decode("utf-8", "replace")
        except OSError:
            continue
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        joined = " ".join(text.split())
        named = dict.fromkeys(re.findall(r"^License: *(\S[^\n]{0,60})", text, re.M))  # Debian's copyright files
        name = ", ".join(list(named)[:_MOST])
        name = name or next((name for pattern, name in _KNOWN if re.search(pattern, joined, re.I)), first[:_SHOWN])
        if name:
            found.append(f"{name} ({path.name})")
    return "; ".join(found)


def licences_of_records(metas: Any, origins: np.ndarray, counts: dict[int, Counter[str]]) -> None:
    """Count what the records' own fields (license, rights, …) say.

    Args:
        metas: Arrow strings [n], each record's other fields as JSON.
        origins: int [n], the source of each.
        counts: by source, how often each licence is named; added to.
    """
    marked = pc.match_substring_regex(metas, '"(licen[cs]|rights")', ignore_case=True)
    rows = np.flatnonzero(np.asarray(pc.fill_null(marked, False)))
    for row in rows.tolist():
        try:
            fields = orjson.loads(metas[row].as_py())
        except orjson.JSONDecodeError:
            continue
        for key, value in fields.items():
            if key.lower() in _KEYS and isinstance(value, str) and value.strip():
                counts.setdefault(int(origins[row]), Counter())[value.strip()[:_SHOWN]] += 1


def licence_notes(
    noted: dict[str, str], names: list[str], counts: dict[int, Counter[str]], documents: dict[int, int]
) -> dict[str, str]:
    """One line for each source that has a note.

    Args:
        noted: by source, what the sample or the folder's licence file says.
        names: the sources.
        counts: as `licences_of_records` gives it.
        documents: by source, how many documents were looked at.
    """
    notes = dict(noted)
    for at, found in sorted(counts.items()):
        shown = [f"{name} ({count:,})" for name, count in sorted(found.items(), key=lambda one: (-one[1], one[0]))]
        more = f" and {len(shown) - _MOST} more" if len(shown) > _MOST else ""
        text = f"by the records: {', '.join(shown[:_MOST])}{more}"
        unnamed = documents[at] - sum(found.values())
        text += f"; {unnamed:,} say nothing" if unnamed > 0 else ""
        notes[names[at]] = f"{notes[names[at]]}; {text}" if names[at] in notes else text
    return dict(sorted(notes.items()))
