"""Licence notes by source: from a folder's licence file and from the records' own fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textmill.corpus.licences import licence_of_folder

MIT = "Copyright (c) 2020 Somebody\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy of"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("LICENSE", MIT, "MIT (LICENSE)"),
        ("COPYING", "   GNU GENERAL PUBLIC LICENSE\n    Version 2, June 1991", "GPL-2.0 (COPYING)"),
        ("LICENCE.txt", "Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0 (LICENCE.txt)"),
        ("copyright", "Format: https://x\n\nFiles: *\nLicense: GFDL-1.3+\n\nFiles: a\nLicense: MIT\n",
         "GFDL-1.3+, MIT (copyright)"),
        ("LICENSE.md", "\n# Terms of my own\n\nAsk me.", "# Terms of my own (LICENSE.md)"),
        ("licensed-works.csv", "a,b", ""),
        ("LICENSE", "", ""),
    ],
)  # fmt: skip
def test_a_licence_file_is_recognized(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    assert licence_of_folder(tmp_path) == said


def test_what_cannot_be_read_is_no_note(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").symlink_to(tmp_path / "nowhere")
    (tmp_path / "COPYING").mkdir()
    assert licence_of_folder(tmp_path) == ""
    assert licence_of_folder(tmp_path / "nowhere") == ""


def test_the_card_notes_licences_by_source(tmp_path: Path, build) -> None:
    folder, table = tmp_path / "texts", tmp_path / "table.jsonl"
    folder.mkdir()
    (folder / "LICENSE").write_text(MIT)
    for number in range(3):
        (folder / f"{number}.txt").write_text(
            f"Text number {number} is about bridges, rivers and the towns by them. " * 3
        )
    licences = ["CC-BY-4.0", "CC-BY-4.0", "CC0", None]
    with table.open("w") as out:
        for number, licence in enumerate(licences):
            text = f"Record {number} tells of a mountain and of those who climbed up to its top."
            out.write(json.dumps({"text": text, "License": licence, "n": number}) + "\n")
    card = build(folder, table, small_corpus=0)
    assert card["licences"] == {
        str(folder): "MIT (LICENSE)",
        str(table): "by the records: CC-BY-4.0 (2), CC0 (1); 1 say nothing",
    }
