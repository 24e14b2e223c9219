"""Data cards as runs write them, with hostile text in them: of the first version, and whole."""

from __future__ import annotations

from typing import Any

HOSTILE = '<script>window.broken=1;document.title="broken"</script><img src=x onerror="window.broken=1">'


def card() -> dict[str, Any]:
    return {
        "sources": [
            {"source": f"speeches/{1790 + i}.txt", "documents": 1, "bytes": 61_000 - 900 * i} for i in range(24)
        ]
        + [{"source": f"letters/{HOSTILE}.jsonl", "documents": 212, "bytes": 480_123}],
        "read": {
            "files": 27,
            "records": 268,
            "bytes": 12_480_511,
            "formats": {".txt": 24, ".jsonl": 2, ".html": 1},
            "encodings": {"utf-8": 25, "windows-1252": 1, "gb18030": 1},
            "repaired": 7,
            "problem_count": 2,
            "problems": [
                {"source": "letters/b.jsonl:14", "problem": "not valid JSON: line 14 ends inside a string"},
                {"source": "photos/cover.txt", "problem": f"binary, not text {HOSTILE}"},
            ],
        },
        "kept": {"documents": 236, "bytes": 11_934_207, "characters": 11_702_118},
        "splits": {
            "train": {"documents": 190, "bytes": 10_702_300},
            "validation": {"documents": 21, "bytes": 588_907},
            "test": {"documents": 35, "bytes": 643_000},
        },
        "languages": {
            "en": {"documents": 201, "bytes": 10_934_207},
            "zh": {"documents": 33, "bytes": 980_000},
            "": {"documents": 2, "bytes": 20_000},
        },
        "dropped": {
            "duplicate": {
                "documents": 19,
                "bytes": 402_110,
                "explanation": "The same text, byte for byte after cleaning, was kept once already.",
                "examples": [
                    {
                        "source": "letters/a.jsonl:3",
                        "value": "of letters/a.jsonl:1",
                        "text": "Dear Sir, I have the honor to acknowledge the receipt of your letter.",
                    }
                ],
            },
            "symbol_ratio": {
                "documents": 9,
                "bytes": 55_801,
                "explanation": "More than a third of the characters are neither letters nor digits.",
                "examples": [
                    {"source": "letters/a.jsonl:77", "value": "0.61", "text": f"{HOSTILE} |||| ---- ++++"},
                    {
                        "source": "网页/目录.html",
                        "value": "0.48",
                        "text": "首页 >> 新闻 >> 国内 >> 正文 ★★★★☆ 【打印】【关闭】————————",
                    },
                ],
            },
            "too_short": {
                "documents": 4,
                "bytes": 310,
                "explanation": "Fewer than 50 characters: too little to learn from.",
                "examples": [{"source": "letters/b.jsonl:9", "value": "12", "text": "See overleaf."}],
            },
        },
        "lengths": {"1": 812, "25": 21_004, "50": 38_551, "75": 62_007, "99": 151_230},
        "licences": {"speeches/": "public domain", "letters/": "CC BY 4.0"},
    }


def effect(threshold: float, dropped: list[int], bound: str = "max", column: str = "symbol_ratio") -> dict[str, Any]:
    factors = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
    tried = [
        {"threshold": float(f"{threshold * factor:.6g}"), "documents": count}
        for factor, count in zip(factors, dropped, strict=True)
    ]
    return {"column": column, "bound": bound, "threshold": threshold, "would_drop": tried}


def whole_card() -> dict[str, Any]:
    """A card with everything that a run can put into it; `card()` is one of the first version."""
    found = card()
    found["sources"] = [
        {"source": "speeches", "documents": 198, "bytes": 11_100_000, "read": {"documents": 214, "bytes": 11_420_000}},
        {"source": HOSTILE, "documents": 33, "bytes": 780_000, "read": {"documents": 47, "bytes": 930_000}},
        {"source": "中文网页", "documents": 5, "bytes": 54_207, "read": {"documents": 7, "bytes": 61_000}},
    ]
    amounts = {"files": 24, "records": 0, "documents": 214, "bytes": 12_000_000, "problems": 1}
    found["read"] |= {
        "by_format": {"text": amounts, "jsonl": {**amounts, "files": 2, "records": 244, "documents": 54, "bytes": 9}},
        "skipped": {"hidden": 3, "messages without a sure translation": 0},
        "problem_kinds": {"not JSON": 1, f"odd {HOSTILE}": 1},
    }
    found["dropped"]["gopher_short_doc"] = {
        "documents": 2,
        "bytes": 601,
        "explanation": "Too few words to be prose.",
        "examples": [{"source": "a", "value": "31", "text": "\u202eright to left\u0000 and a null" + " much" * 4000}],
    }
    return {
        **found,
        "split_rule": "By the content's hash alone: 5% validation, 5% test.",
        "moved": {},
        "cut": None,
        "rules": {
            "symbol_ratio": effect(0.5, [125, 61, 30, 12, 9, 8, 4, 2, 0, 0]),
            "too_short": effect(50, [1, 2, 3, 4, 4, 5, 7, 11, 19, 44], "min", "characters"),
            "gopher_short_doc": effect(50, [0, 1, 2, 4, 6, 7, 9, 12, 18, 41], "min", "gopher_words"),
            "gopher_long_doc": effect(100_000, [3, 1, 0, 0, 0, 0, 0, 0, 0, 0], "max", "gopher_words"),
            "pii": {**effect(0, [14] * 10), "would_drop": [{"threshold": 0.0, "documents": 14}]},
        },
        "near_duplicates": {"candidates": 72, "estimated_away": 29, "verified": 43, "confirmed": 14, "dropped": 11},
        "removed": {"paragraphs": {"documents": 32, "bytes": 25_010}},
        "mixture": {
            "everything else": {"wanted": 0.7, "reached": 0.931, "copies": 1.0, "bytes": 9_900_000, "limited": False},
            "zh": {"wanted": 0.3, "reached": 0.069, "copies": 4.0, "bytes": 802_300, "limited": True},
        },
        "pii": {
            "pii_email": {"documents": 41, "found": 87},
            "pii_iban": {"documents": 0, "found": 0},
            "pii_total": {"documents": 41, "found": 87},
        },
        "length_histogram": {
            "edges": [0, *(2**power for power in range(4, 25))],
            "documents": [0, 0, 0, 4, 9, 21, 30, 31, 29, 30, 29, 24, 17, 10, 2, 0, 0, 0, 0, 0, 0, 0],
        },
        "measured": ["characters", "gopher_words", "language", "pii_email", "symbol_ratio"],
    }
