"""Settings of the corpus stage. Touches nothing and imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from textmill.base.errors import UsageError


@dataclass(frozen=True)
class CorpusConfig:
    """How raw files become documents, which documents are kept, and how they are split."""

    text_column: str | None = None
    """Column or key that holds the text in .jsonl, .csv, .tsv and .parquet. By default the first of text,
    content, body, … that exists, else the only column of strings."""

    main_content: bool = True
    """Keep only the main content of HTML pages. Menus and footers repeat on every page and teach nothing."""

    repair: bool = True
    """Repair text that was decoded with the wrong encoding ("cafÃ©" becomes "café")."""

    min_characters: int = 50
    """Fewest characters of a document. Shorter ones are mostly headings and menu entries. A Chinese,
    Japanese or Korean character counts as three, so that a quatrain of twenty characters stays."""

    max_symbol_ratio: float = 0.5
    """Largest share of punctuation and symbols among the visible characters. Prose has about 0.05,
    Chinese prose 0.12, source code 0.3; above a half there are rulers, tables of numbers and drawings."""

    validation_share: float = 0.05
    """Share of the documents that guides training. A twentieth measures well and costs little text."""

    test_share: float = 0.05
    """Share of the documents that training never sees, for the final figures."""

    max_document_characters: int = 500_000
    """A document longer than twice this is cut into pieces of about this many characters, at a blank line
    where there is one. It bounds memory: a file of any size is read piece by piece."""

    small_corpus: int = 100
    """With fewer documents than this (or when one document holds more than a tenth of the text), long
    documents are cut into pieces, because a split of a few whole documents would be empty or lopsided. 0 switches
    this off."""

    piece_characters: int = 4_000
    """Length of those pieces, in characters: several model contexts, so that little is lost at their ends."""

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} is not a share.",
                    "A share lies between 0 and 1.",
                    f"Write for example --{name.replace('_', '-')} 0.05.",
                )
        if self.validation_share + self.test_share >= 1:
            raise UsageError(
                "Validation and test together take the whole corpus.",
                f"{self.validation_share} and {self.test_share} leave nothing to train on.",
                "Write for example --validation-share 0.05 --test-share 0.05.",
            )
        if not 0 <= self.max_symbol_ratio <= 1:
            raise UsageError(
                f"--max-symbol-ratio {self.max_symbol_ratio} is not a share.",
                "It lies between 0 and 1; 1 switches the rule off.",
                "Write for example --max-symbol-ratio 0.5.",
            )
        for name, least in (
            ("min_characters", 1),
            ("small_corpus", 0),
            ("piece_characters", 20),
            ("max_document_characters", 1_000),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} is too small.",
                    fix=f"It must be at least {least}.",
                )
