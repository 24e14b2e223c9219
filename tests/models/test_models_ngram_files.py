"""ARPA files are read strictly and written back as they were; KenLM's binaries and the compact form score as KenLM."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lmplz import FIXTURES, lmplz, parse, train

from textmill.base.errors import Failure, UsageError
from textmill.corpus.kernels import kernel
from textmill.models.ngram.arpa import read_arpa, write_arpa
from textmill.models.ngram.config import TrainingConfig
from textmill.models.ngram.files import line_blocks, open_bytes
from textmill.models.ngram.numbers import read_number, write_number
from textmill.models.ngram.query import Perplexity, WordModel, open_model

TEST = (FIXTURES / "test.txt").read_bytes()


@kernel
def write(value: float, out: np.ndarray) -> int:
    return write_number(value, out, 0)


@kernel
def read(data: np.ndarray) -> tuple[float, bool]:
    return read_number(data, 0, len(data))


def parsed(text: str) -> tuple[float, bool]:
    return read(np.frombuffer(bytearray(text.encode()), dtype=np.uint8))


@settings(max_examples=500, deadline=None)
@given(st.floats(-120, 0, width=32, allow_subnormal=False))
@example(-1.1754943508222875e-38)
@example(-1.5e-7)
@example(-(2.0**-12))
@example(-100.0)
def test_a_number_is_written_as_the_shortest_that_reads_back_the_same(value: float) -> None:
    single = np.float32(value)
    out = np.empty(64, dtype=np.uint8)
    text = out[: write(single, out)].tobytes().decode()
    back, good = parsed(text)
    assert good
    assert np.float32(back) == single == np.float32(text)
    shortest = np.format_float_scientific(single, unique=True, trim="-").partition("e")[0]
    assert len(text.partition("e")[0].lstrip("-0.").replace(".", "").rstrip("0")) <= len(
        shortest.lstrip("-0").replace(".", "").rstrip("0")
    )
    assert ("e" in text) == (single != 0 and abs(single) < 1e-6)


@pytest.mark.parametrize("text", ["-1.25", "0", "-3e-7", "1E2", "+0.5", "-.5", "7.", "-12345678901234567890.5"])
def test_numbers_are_read_as_python_reads_them(text: str) -> None:
    assert parsed(text) == (pytest.approx(float(text), rel=1e-14), True)


@pytest.mark.parametrize("text", ["", "-", ".", "e5", "1e", "1x", "1.2.3", "nan", "--1", "0x1"])
def test_what_is_no_number_is_not_read(text: str) -> None:
    assert not parsed(text)[1]


@pytest.mark.parametrize("name", ["o3", "o5-prune001", "odd-o1", "odd-o6-prune012"])
def test_lmplzs_files_are_written_back_to_the_byte(name: str, tmp_path: Path) -> None:
    words, grams, closed = read_arpa(FIXTURES / f"{name}.arpa.gz")
    assert closed
    write_arpa(words, grams, tmp_path / "again.arpa")
    assert (tmp_path / "again.arpa").read_bytes() == lmplz(name)
    write_arpa(words, grams, tmp_path / "again.arpa.gz")
    assert gzip.decompress((tmp_path / "again.arpa.gz").read_bytes()) == lmplz(name)


GOOD = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1\t<unk>
-99\t<s>\t-0.3
-0.5\ta\t-0.2
-0.4\t</s>

\\2-grams:
-0.1\t<s> a
-0.2\ta </s>

\\end\\
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("\\data\\", "data", 1, r"begin with"),
        ("ngram 2=2", "ngram 3=2", 3, "ngram 2="),
        ("ngram 2=2", "ngram 2=3", 14, "fewer 2-grams"),
        ("ngram 2=2", "ngram 2=1999999999", 3, "do not fit"),
        ("ngram 1=4", "ngram 1=3", 9, "There should be"),
        ("-0.5\ta", "-0,5\ta", 8, "number"),
        ("-0.5\ta", "0.5\ta", 8, "above 0"),
        ("-0.5\ta\t-0.2", "-0.5\ta\tx", 8, "back-off"),
        ("-0.5\ta\t-0.2", "-0.5", 8, "too few fields"),
        ("-0.1\t<s> a", "-0.1\t<s> a b -1", 12, "too many fields"),
        ("-0.1\t<s> a", "-0.1\t<s> b", 12, "not among the 1-grams"),
        ("-0.1\t<s> a", "-0.1\t<s> a\t-0.7", 12, "back-off"),
        ("-0.2\ta </s>", "-0.2\t<s> a", 13, "before"),
        ("-0.4\t</s>", "-0.4\ta", 9, "before"),
        ("\\2-grams:", "\\3-grams:", 11, "There should be"),
        ("\\end\\\n", "", 14, "the file ends"),
        ("\\end\\\n", "\\end\\\nmore\n", 16, "after"),
    ],
)
def test_a_corrupt_file_is_refused_with_the_line(tmp_path: Path, old: str, new: str, line: int, why: str) -> None:
    path = tmp_path / "bad.arpa"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(Failure, match=f"line {line}\\.") as error:
        read_arpa(path)
    assert why in str(error.value)


@pytest.mark.parametrize("size", [0, 40, 20_000, 60_000])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.arpa"
    path.write_bytes(lmplz("o3")[:size])
    with pytest.raises(Failure, match=r"line \d"):
        read_arpa(path)
    packed = (FIXTURES / "o3.arpa.gz").read_bytes()
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(Failure):
        read_arpa(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bytes_that_were_hit_by_chance_never_end_in_a_traceback(tmp_path_factory, data) -> None:
    raw = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "hit.arpa"
    path.write_bytes(raw)
    try:
        model = open_model(path)
    except Failure:
        return
    assert model.order == 2


def summary(model: WordModel, data: bytes = TEST) -> tuple[float, float, int, int]:
    totals = Perplexity()
    totals.add(model.score_block(data))
    return totals.including_oov, totals.excluding_oov, totals.oov, totals.tokens


@pytest.fixture(scope="module")
def compact(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("compact") / "o3.ngrams"
    open_model(FIXTURES / "o3.arpa.gz").save(path)
    return path


@pytest.mark.parametrize("name", ["o3", "o5-prune001"])
def test_query_gives_kenlms_figures(name: str, compact: Path) -> None:
    wanted = (FIXTURES / f"{name}.query.txt").read_text().splitlines()
    figures = [float(line.partition("\t")[2]) for line in wanted[1:]]
    for path in (FIXTURES / f"{name}.arpa.gz", *([compact] if name == "o3" else [])):
        model = open_model(path)
        assert summary(model) == pytest.approx(tuple(figures), rel=1e-12)
        *cells, total = wanted[0].split("\t")
        sentence = " ".join(cell.rpartition("=")[0] for cell in cells[:-1])
        for cell, (word, log10, length, unknown) in zip(cells, model.word_scores(sentence), strict=True):
            name_, _, rest = cell.rpartition("=")
            number, wanted_length, value = rest.split()
            assert (name_, int(wanted_length)) == (word, length)
            assert int(number) == (0 if unknown else model.words.find(word.encode()))
            assert log10 == np.float32(value)
        assert total == f"Total: {model.score([sentence])[0]!s} OOV: 3"


@pytest.mark.parametrize("kind", ["probing", "trie"])
def test_kenlms_binaries_score_as_kenlm_does(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(gzip.decompress((FIXTURES / f"{kind}.bin.gz").read_bytes()))
    model, text = open_model(path), b"".join(TEST.splitlines(keepends=True)[:30])
    *lines, with_oov, without, oov, tokens = (FIXTURES / "small.query.txt").read_text().splitlines()
    figures = tuple(float(line.partition("\t")[2]) for line in (with_oov, without, oov, tokens))
    assert summary(model, text) == pytest.approx(figures, rel=1e-12)
    scores = model.score_block(text)
    for line, log10, unknown in zip(lines, scores.log10, scores.unknown, strict=True):
        assert line == f"Total: {log10!s} OOV: {unknown}"
    arpa = open_model(FIXTURES / "small.arpa.gz")
    np.testing.assert_array_equal(arpa.score_block(TEST).log10, model.score_block(TEST).log10)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (49, ord("4"), "version"),
        (56 + 4, 7, "test values"),
        (96, 3, "quantized trie"),
        (104, 9, "version"),
        (88, 9, "order 9"),
    ],
)
def test_kenlm_files_that_are_not_read_are_told_apart(tmp_path: Path, place: int, value: int, why: str) -> None:
    raw = bytearray(gzip.decompress((FIXTURES / "probing.bin.gz").read_bytes()))
    raw[place] = value
    path = tmp_path / "model.bin"
    path.write_bytes(raw)
    with pytest.raises(Failure, match=why):
        open_model(path)


@pytest.mark.parametrize("kind", ["probing", "trie"])
@pytest.mark.parametrize("share", [0.003, 0.5, 0.8])
def test_a_kenlm_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    raw = gzip.decompress((FIXTURES / f"{kind}.bin.gz").read_bytes())
    path = tmp_path / "model.bin"
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(Failure):
        open_model(path)


def test_the_compact_form_is_mapped_and_refused_when_damaged(compact: Path, tmp_path: Path) -> None:
    model = open_model(compact)
    arpa = open_model(FIXTURES / "o3.arpa.gz")
    np.testing.assert_array_equal(model.score_block(TEST).log10, arpa.score_block(TEST).log10)
    path = tmp_path / "cut"
    path.write_bytes(compact.read_bytes()[:5000])
    with pytest.raises(Failure, match=r"no n-gram model|outside"):
        open_model(path)
    with pytest.raises(UsageError, match="no model"):
        open_model(tmp_path / "absent")
    (tmp_path / "text").write_text("just text\n")
    with pytest.raises(Failure, match="line 1"):
        open_model(tmp_path / "text")


def test_threads_make_no_difference() -> None:
    model = open_model(FIXTURES / "o5-prune001.arpa.gz")
    alone, many = model.score_block(TEST, threads=1), model.score_block(TEST, threads=7)
    for name in ("log10", "tokens", "unknown", "unknown_log10"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(many, name))


def test_a_probing_file_says_that_it_cannot_be_turned_into_another(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(gzip.decompress((FIXTURES / "probing.bin.gz").read_bytes()))
    with pytest.raises(UsageError, match="ARPA"):
        open_model(path).save(tmp_path / "other")


def test_kenlms_python_module_gives_the_same_scores_on_our_files(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    trained = train("train.txt", TrainingConfig(4))
    path = tmp_path / "ours.arpa"
    write_arpa(trained.words, trained.grams, path)
    theirs, ours = kenlm.Model(str(path)), WordModel.of(trained.words, trained.grams)
    lines = [*TEST.decode().splitlines(), "", "unseen words only", "the </s> of", "a\x0bb  c"]
    scores = ours.score(lines)
    for line, mine in zip(lines, scores, strict=True):
        assert mine == pytest.approx(theirs.score(line), abs=1e-6)
        if line.strip():
            tokens = len(line.split()) + 1
            assert 10 ** (-mine / tokens) == pytest.approx(theirs.perplexity(line), rel=1e-6)
        found = [(log10, length, unknown) for _, log10, length, unknown in ours.word_scores(line)]
        for (mine_, length, oov), (log10, wanted_length, wanted_oov) in zip(
            found, theirs.full_scores(line), strict=True
        ):
            assert (length, oov) == (wanted_length, wanted_oov)
            assert mine_ == pytest.approx(log10, abs=1e-6)


def test_a_file_without_unk_and_with_words_in_any_order_is_read_as_kenlm_reads_it(tmp_path: Path) -> None:
    # As SRILM writes: no <unk>, special words anywhere, and a trigram whose suffix was pruned.
    lines = [
        "\\data\\", "ngram 1=5", "ngram 2=6", "ngram 3=1", "", "\\1-grams:", "-0.8\t</s>", "-0.7\tb\t-0.25",
        "-0.6\ta\t-0.5", "-99\t<s>\t-0.125", "-0.9\tc", "", "\\2-grams:", "-0.3\t<s> a\t-0.0625", "-0.2\ta b\t-0.1",
        "-0.15\tb </s>", "-0.4\tc a\t-0.01", "-0.45\tc </s>", "-0.7\tb b", "", "\\3-grams:", "-0.05\ta b c",
        "", "\\end\\", "",
    ]  # fmt: skip
    path = tmp_path / "srilm.arpa"
    path.write_text("\n".join(lines))
    model = open_model(path)
    found = model.score(["a b c", "b", "x a b", "c c"])
    # Back-off by hand: p(a|<s>) p(b|<s> a) p(c|a b) p(</s>|b c), and so on.
    wanted = [
        -0.3 + (-0.2 - 0.0625) - 0.05 - 0.45,
        (-0.7 - 0.125) - 0.15,
        (-100 - 0.125) - 0.6 - 0.2 + (-0.15 - 0.1),
        (-0.9 - 0.125) - 0.9 - 0.45,
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    kenlm = pytest.importorskip("kenlm")
    theirs = kenlm.Model(str(path))
    np.testing.assert_allclose(found, [theirs.score(line) for line in ("a b c", "b", "x a b", "c c")], atol=1e-5)


@pytest.mark.parametrize("opener", ["gzip", "bz2", "lzma", "plain"])
def test_packed_texts_are_told_by_their_bytes(opener: str, tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(2000)).encode() + b"end"
    packed = text if opener == "plain" else __import__(opener).compress(text)
    path = tmp_path / "text"
    path.write_bytes(packed)
    with open_bytes(path) as stream:
        blocks = list(line_blocks(stream, 1000))
    assert b"".join(blocks) == text
    assert all(block.endswith(b"\n") for block in blocks[:-1])
    if opener != "plain":
        path.write_bytes(packed[:-20])
        with pytest.raises(Failure, match="damaged"), open_bytes(path) as stream:
            list(line_blocks(stream, 1000))


def test_lines_longer_than_a_block_stay_whole() -> None:
    text = b"x" * 5000 + b"\n" + b"y z\n" * 3 + b"w" * 3000
    blocks = list(line_blocks(io.BytesIO(text), 100))
    assert b"".join(blocks) == text
    assert blocks[0].startswith(b"x" * 5000)


def test_perplexity_of_nothing_is_not_a_number_and_of_the_impossible_infinite() -> None:
    assert math.isnan(Perplexity().including_oov)
    assert Perplexity(sentences=1, tokens=2, log10=-math.inf).including_oov == math.inf


def test_parse_of_the_tests_reads_all() -> None:
    assert [len(order) for order in parse(lmplz("o5-prune001"))] == [2346, 7882, 782, 298, 148]
