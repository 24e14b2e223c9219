"""How many words a text has, for word perplexity; the rule is named. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def count_words(texts: Sequence[str]) -> tuple[int, str]:
    """Words of documents, one end counted for each, and the rule by which they were counted.

    Text of which more than a third is Chinese characters is cut by `rjieba` where that is installed, else by
    character; other text at whitespace.

    Returns:
        the count, and "whitespace", "rjieba-VERSION" or "characters".
    """
    characters = sum(map(len, texts))
    chinese = sum(len(HAN.findall(text)) for text in texts)
    if chinese * 3 <= characters:
        return sum(len(text.split()) + 1 for text in texts), "whitespace"
    try:
        from importlib.metadata import version

        import rjieba
    except ImportError:
        return sum(len("".join(text.split())) + 1 for text in texts), "characters"
    count = sum(sum(1 for word in rjieba.cut(text) if word.strip()) + 1 for text in texts)
    return count, f"rjieba-{version('rjieba')}"
