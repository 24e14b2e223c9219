"""Settings of the corpus stage. Touches nothing and imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from textmill.base.errors import UsageError, nearest

MEASURES = ("gopher", "c4", "fineweb", "chinese", "code", "pii", "toxicity")
"""Groups of judgement columns that can be measured on request; characters and language always are."""


LISTED = ("measures", "rules", "languages", "phone_regions")
"""Settings that hold several names: each given by an option of its own, or all in one with commas between them."""


@dataclass(frozen=True)
class CorpusConfig:
    """How raw files become documents, which documents are kept, and how they are split."""

    # What is read -----------------------------------------------------------------------------------------------

    text_column: str | None = None
    """Column or key that holds the text in .json, .jsonl, .csv, .tsv and .parquet. By default the first of text,
    content, body, … that exists, else the only column of strings. A list of strings becomes a line each."""

    extractor: Literal["fast", "precise", "none"] = "fast"
    """How HTML becomes text. fast keeps the main content, because menus and footers repeat on every page and teach
    nothing; precise does so a little more strictly and loses a little more; none keeps everything that a reader of
    the page would see."""

    max_document_characters: int = 500_000
    """A document longer than twice this is cut into pieces of about this many characters, at a blank line
    where there is one. It bounds memory: a file of any size is read piece by piece."""

    # How it is cleaned ------------------------------------------------------------------------------------------

    repair: bool = True
    """Repair text that was decoded with the wrong encoding ("cafÃ©" becomes "café")."""

    normalize: Literal["nfc", "nfkc"] = "nfc"
    """Unicode normalization. nfc only composes accents; nfkc also turns full-width letters, ligatures and other
    compatibility characters into plain ones, which cannot be undone."""

    chinese: Literal["keep", "simplified", "traditional"] = "keep"
    """Turn Chinese text into simplified or traditional characters (pip install "textmill[chinese]")."""

    collapse_spaces: bool = False
    """Make one space of several, and one blank line of several. It destroys indentation, so not for code."""

    segment: bool = False
    """Put spaces between words: Chinese by a dictionary (pip install "textmill[chinese]"), other text at word
    boundaries. For models that want words, such as n-grams over words."""

    stop_words: bool = False
    """Remove the most frequent words (the, of, 的, 了 …). For word vectors and topics; a language model needs
    them."""

    # What is protected ------------------------------------------------------------------------------------------

    pii: Literal["measure", "replace", "drop", "off"] = "measure"
    """Personal data, found by pattern and checksum: e-mail, phone, IP address, credit and bank card, IBAN, US SSN,
    Chinese ID and mobile number, keys and secrets. measure counts it in the card, replace puts placeholders such as
    `<email>` in its place, drop drops the document."""

    phone_regions: tuple[str, ...] = ("US", "CN")
    """Country codes (US,CN,DE …) whose national phone numbers are recognized; numbers that begin with + are for
    every country. Each further country finds more, and takes more other numbers for phone numbers."""

    toxic_words: str | None = None
    """A file with further words, one a line, for the toxicity columns."""

    toxic: tuple[str, ...] = ()
    """Files or folders of text that you call toxic. A classifier learns to tell it from the corpus (or from
    --harmless), and every document gets toxicity_score: it finds insults that no list of words has."""

    harmless: tuple[str, ...] = ()
    """Files or folders of harmless text for that classifier. The more it is like the toxic text in kind and
    subject, the better. By default a sample of the corpus itself."""

    # How it is judged -------------------------------------------------------------------------------------------

    measures: tuple[str, ...] = ("pii", "toxicity")
    """Which groups of judgement columns to measure beside length and language: gopher, c4, fineweb, chinese, code,
    pii, toxicity; several with commas between them (--measures gopher,pii). What is measured can be thresholded later
    without reading again. Groups that a rule needs are measured in any case; none (--measures none) is fastest.
    chinese needs pip install "textmill[chinese]"."""

    rules: tuple[str, ...] = ()
    """Rules to apply after min_characters and max_symbol_ratio: names of dialects (datatrove-gopher, datatrove-c4,
    datatrove-fineweb, map-cc, chinese-web-text, code), or a .toml file with dialects and thresholds; several with
    commas between them, tried in that order. Made for web pages: they drop most poems, dialogues and lists, so none
    applies unless asked."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Other thresholds for rules, by name, e.g. --thresholds.gopher_short_doc 30."""

    min_characters: int = 50
    """Fewest characters of a document. Shorter ones are mostly headings and menu entries. A Chinese,
    Japanese or Korean character counts as three, so that a quatrain of twenty characters stays."""

    max_symbol_ratio: float = 0.5
    """Largest share of punctuation and symbols among the visible characters. Prose has about 0.05,
    Chinese prose 0.12, source code 0.3; above a half there are rulers, tables of numbers and drawings."""

    languages: tuple[str, ...] = ()
    """Keep only documents in these languages (ISO 639-1 codes, such as en,zh). Empty keeps all, also those of
    unknown language."""

    good: tuple[str, ...] = ()
    """Files or folders of text that you call good. A classifier learns to tell it from the corpus (or from --bad),
    and an n-gram model learns its wording; every document gets quality_score and perplexity_bits_per_byte."""

    bad: tuple[str, ...] = ()
    """Files or folders of text that you call bad, for the classifier. By default a sample of the corpus itself."""

    min_quality: float = 0.0
    """Lowest quality_score (0 to 1) of a document that stays; needs --good."""

    max_perplexity: float = 0.0
    """Highest perplexity_bits_per_byte of a document that stays; 0 sets no limit; needs --good."""

    max_toxicity: float = 1.0
    """Highest toxicity_score (0 to 1) of a document that stays; 1 sets no limit; below that it needs --toxic."""

    # What is dropped as repeated --------------------------------------------------------------------------------

    near_duplicates: bool = True
    """Drop a document that nearly repeats another: found by MinHash, then verified by exact Jaccard similarity of
    their five-word shingles."""

    near_threshold: float = 0.7
    """Jaccard similarity from which a document counts as a repeat. 0.7 is about one word in thirteen changed."""

    keep: Literal["longest", "first", "best"] = "longest"
    """Which of several near-duplicates stays; best is by quality_score and needs --good."""

    repeated_paragraphs: int = 0
    """Copies of one paragraph that stay in the whole corpus; further ones are cut out. 0 leaves all."""

    repeated_lines: int = 0
    """The same for lines."""

    repeated_substrings: int = 0
    """Cut out passages of at least this many bytes that occurred before, found by suffix array; 0 leaves them.
    Needs about ten times the corpus in memory."""

    decontaminate: tuple[str, ...] = ()
    """Files of evaluation text. A document that shares a run of words with them is dropped."""

    contamination_words: int = 13
    """Length of such a run, in words (Chinese: characters)."""

    # How it is composed -----------------------------------------------------------------------------------------

    mix: dict[str, float] = field(default_factory=dict)
    """Wanted shares of the training text by source or language, e.g. --mix.en 0.7 --mix.zh 0.3. A name is a language
    code or an argument as typed. What is not named keeps its own share of the rest."""

    max_copies: float = 4.0
    """Most often that mixing may repeat a document. Beyond four readings repeated text teaches little (Muennighoff
    et al. 2023, arXiv:2305.16264)."""

    order: Literal["mixed", "short-first", "easy-first", "best-last"] = "mixed"
    """Order of the training documents. mixed draws them at random; the others are curricula, read once in this order:
    by length, by perplexity_bits_per_byte, by quality_score (the last two need --good)."""

    # How it is split --------------------------------------------------------------------------------------------

    validation_share: float = 0.05
    """Share of the documents that guides training. A twentieth measures well and costs little text."""

    test_share: float = 0.05
    """Share of the documents that training never sees, for the final figures."""

    small_corpus: int = 100
    """With fewer documents than this (or when one document holds more than a tenth of the text), long
    documents are cut into pieces, because a split of a few whole documents would be empty or lopsided. 0 switches
    this off."""

    piece_characters: int = 4_000
    """Length of those pieces, in characters: several model contexts, so that little is lost at their ends."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # recipes and stage.json give lists
            if isinstance(getattr(self, one.name), list):
                object.__setattr__(self, one.name, tuple(getattr(self, one.name)))
        for name in LISTED:
            values = (part.strip() for value in getattr(self, name) for part in value.split(","))
            object.__setattr__(self, name, tuple(dict.fromkeys(part for part in values if part)))
        if self.measures == ("none",):
            object.__setattr__(self, "measures", ())
        for group in self.measures:
            if group not in MEASURES:
                raise UsageError(
                    f'There is no group of measures "{group}".{nearest(group, MEASURES)}',
                    fix=f"Choose from {', '.join(MEASURES)}, or none.",
                )
        self._check_shares()
        self._check_numbers()

    def _check_shares(self) -> None:
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
        if not 0 <= self.max_toxicity <= 1:
            raise UsageError(
                f"--max-toxicity {self.max_toxicity} is not a score.",
                "It lies between 0 and 1; 1 sets no limit.",
                "Write for example --max-toxicity 0.5.",
            )
        if not 0.6 <= self.near_threshold <= 1:
            raise UsageError(
                f"--near-threshold {self.near_threshold} is not possible.",
                "It is a Jaccard similarity. Of pairs at 0.6 the signatures find 98%, below that too few; 1 asks for "
                "the same shingles.",
                "Write for example --near-threshold 0.7.",
            )
        if any(share < 0 for share in self.mix.values()) or sum(self.mix.values()) > 1.0001:
            raise UsageError(
                f"The shares of --mix add up to {sum(self.mix.values()):g}.",
                "They are shares of the training text: none below 0, all together at most 1.",
                "Write for example --mix.en 0.7 --mix.zh 0.3.",
            )

    def _check_numbers(self) -> None:
        for name, least in (
            ("min_characters", 1),
            ("small_corpus", 0),
            ("piece_characters", 20),
            ("max_document_characters", 1_000),
            ("repeated_paragraphs", 0),
            ("repeated_lines", 0),
            ("repeated_substrings", 0),
            ("contamination_words", 5),
            ("max_copies", 1),
            ("min_quality", 0),
            ("max_perplexity", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} is too small.",
                    fix=f"It must be at least {least}.",
                )
        if 0 < self.repeated_substrings < 50:
            raise UsageError(
                f"--repeated-substrings {self.repeated_substrings} would cut ordinary phrases out of sentences.",
                fix="Give at least 50 bytes; 200 is usual. 0 switches it off.",
            )

    def check_learned(self) -> None:
        """See to it that what the settings go by was learned. Not a part of making them: --rethreshold takes what was
        learned from the run.

        Raises:
            UsageError: a threshold on quality, perplexity or toxicity without text to learn it from.
        """
        needs = {
            "--min-quality": self.min_quality > 0,
            "--max-perplexity": self.max_perplexity > 0,
            "--keep best": self.keep == "best",
            f"--order {self.order}": self.order in ("easy-first", "best-last"),
            "--bad": bool(self.bad),
        }
        for option, used in needs.items():
            if used and not self.good:
                raise UsageError(
                    f"{option} needs --good.",
                    "Quality and perplexity are learned from text that you call good.",
                    "Name some: --good my_best_texts/",
                )
        for option, used in {"--harmless": bool(self.harmless), "--max-toxicity": self.max_toxicity < 1}.items():
            if used and not self.toxic:
                raise UsageError(
                    f"{option} needs --toxic.",
                    "Toxicity scores are learned from text that you call toxic.",
                    "Name some: --toxic my_toxic_texts/",
                )


DECIDING = frozenset(
    {
        "rules", "thresholds", "min_characters", "max_symbol_ratio", "languages", "min_quality", "max_perplexity",
        "max_toxicity", "near_duplicates", "near_threshold", "keep", "repeated_paragraphs", "repeated_lines",
        "repeated_substrings", "mix", "max_copies", "order", "validation_share", "test_share", "small_corpus",
        "piece_characters", "measures",
    }
)  # fmt: skip
"""Settings that only decide over what was measured: a change in them reads no input again."""


def measuring(config: CorpusConfig) -> Mapping[str, Any]:
    """The settings that shape the measured documents."""
    return {one.name: getattr(config, one.name) for one in dataclasses.fields(config) if one.name not in DECIDING}


def reading_only(config: CorpusConfig) -> CorpusConfig:
    """The same reading and cleaning for text that is to be evaluated: nothing held out, filtered, mixed or compared."""
    default = CorpusConfig()
    kept = (*CLEANING, "min_characters", "max_symbol_ratio", "small_corpus", "piece_characters")
    settings = {
        one.name: getattr(config if one.name in kept else default, one.name) for one in dataclasses.fields(config)
    }
    settings.update(
        pii="replace" if config.pii == "replace" else "off",
        measures=(),
        near_duplicates=False,
        validation_share=0.0,
        test_share=0.0,
    )
    return CorpusConfig(**settings)


CLEANING = (
    "text_column", "extractor", "max_document_characters", "repair", "normalize", "chinese", "collapse_spaces",
    "segment", "stop_words", "phone_regions",
)  # fmt: skip
"""Settings that shape a document's text."""
