"""The tagger: TnT's arithmetic on real tagged sentences, exact search, files, and the command.

The sentences are the beginnings of Brown's files ca01 and ca02, which may be redistributed.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from textmill.base.errors import Failure, UsageError
from textmill.models.hmm.tagged_text import (
    TaggedDocument,
    all_sentences,
    brown_tag,
    hold_out,
    read_sentence,
    read_tagged,
    universal_tag,
)
from textmill.models.hmm.tagger import Tagger

BROWN = """\
The/at Fulton/np-tl County/nn-tl Grand/jj-tl Jury/nn-tl said/vbd Friday/nr an/at investigation/nn of/in Atlanta's/np$ \
recent/jj primary/nn election/nn produced/vbd ``/`` no/at evidence/nn ''/'' that/cs any/dti irregularities/nns \
took/vbd place/nn ./.
The/at jury/nn further/rbr said/vbd in/in term-end/nn presentments/nns that/cs the/at City/nn-tl Executive/jj-tl \
Committee/nn-tl ,/, which/wdt had/hvd over-all/jj charge/nn of/in the/at election/nn ,/, ``/`` deserves/vbz the/at \
praise/nn and/cc thanks/nns of/in the/at City/nn-tl of/in-tl Atlanta/np-tl ''/'' for/in the/at manner/nn in/in \
which/wdt the/at election/nn was/bedz conducted/vbn ./.
However/wrb ,/, the/at jury/nn said/vbd it/pps believes/vbz ``/`` these/dts two/cd offices/nns should/md be/be \
combined/vbn to/to achieve/vb greater/jjr efficiency/nn and/cc reduce/vb the/at cost/nn of/in \
administration/nn ''/'' ./.
The/at City/nn-tl Purchasing/vbg-tl Department/nn-tl ,/, the/at jury/nn said/vbd ,/, ``/`` is/bez lacking/vbg in/in \
experienced/vbn clerical/jj personnel/nns as/cs a/at result/nn of/in city/nn personnel/nns policies/nns ''/'' ./.
It/pps urged/vbd that/cs the/at city/nn ``/`` take/vb steps/nns to/to remedy/vb ''/'' this/dt problem/nn ./.
"""


@pytest.fixture(scope="module")
def document() -> TaggedDocument:
    lines = BROWN.splitlines()
    return TaggedDocument("brown", [read_sentence(line, "brown", f"line {i}") for i, line in enumerate(lines, 1)])


@pytest.mark.parametrize("order", [2, 3])
def test_the_search_finds_the_likeliest_of_all_paths(document: TaggedDocument, order: int) -> None:
    """Against the sum of the logarithms of Brants' equations, over every assignment of tags."""
    tagger = Tagger.learn(document.sentences, order)
    boundary = len(tagger.tags)

    def log_probability(words: list[str], path: tuple[int, ...]) -> float:
        total, history = 0.0, (boundary, boundary)
        for word, tag in zip([*words, None], [*path, boundary], strict=True):
            probability = tagger._lower[history[1], tag]
            pair = tagger._pairs[history]
            if pair >= 0:
                left, right = tagger._pair_bounds[pair], tagger._pair_bounds[pair + 1]
                probability += dict(zip(tagger._third[left:right], tagger._shares[left:right], strict=True)).get(tag, 0)
            total += np.log(probability)
            if word is not None:
                row = [r for r, c, n in tagger.lexicon.tolist() if (r, c) == (tagger.number[word], tag)]
                if not row:
                    return -np.inf
                together = next(n for r, c, n in tagger.lexicon.tolist() if (r, c) == (tagger.number[word], tag))
                total += np.log(together / tagger.tag_counts[tag])
            history = (history[1], tag)
        return float(total)

    words = ["the", "City", "said", "that", "in", "which"]
    options = [[c for r, c, _ in tagger.lexicon.tolist() if r == tagger.number[word]] for word in words]
    best = max(itertools.product(*options), key=lambda path: log_probability(words, path))
    assert tagger.tag([words]) == [[tagger.tags[i] for i in best]]


def test_interpolation_weights_are_brants(document: TaggedDocument) -> None:
    """Deleted interpolation written out as in figure 1 of the paper."""
    tagger = Tagger.learn(document.sentences)
    boundary = len(tagger.tags)
    number = {tag: i for i, tag in enumerate(tagger.tags)}
    paths = [[boundary, boundary, *(number[t] for t in s.tags), boundary] for s in document.sentences]
    threes = [three for path in paths for three in zip(path, path[1:], path[2:], strict=False)]
    twos = [three[1:] for three in threes]
    ones = [three[2] for three in threes]
    weights = np.zeros(3)
    for three in set(threes):
        share = [
            (ones.count(three[2]) - 1) / (len(ones) - 1),
            0.0,
            0.0,
        ]
        below = sum(1 for two in twos if two[0] == three[1])
        share[1] = (twos.count(three[1:]) - 1) / (below - 1) if below > 1 else 0.0
        below = sum(1 for other in threes if other[:2] == three[:2])
        share[2] = (threes.count(three) - 1) / (below - 1) if below > 1 else 0.0
        place = max(range(3), key=lambda i: (share[i], i))
        weights[place] += threes.count(three)
    assert np.allclose(tagger.weights, weights / weights.sum())
    assert Tagger.learn(document.sentences, order=2).weights[2] == 0


def test_unknown_words_are_guessed_by_ending_and_shape(document: TaggedDocument) -> None:
    tagger = Tagger.learn(document.sentences)
    for word in ("elections", "zyxyx", "9-to-5", "Z", ""):
        assert tagger.guess(word).sum() == pytest.approx(1)
    assert tagger.tags[int(tagger.guess("combed").argmax())] in ("vbd", "vbn")
    assert tagger.tags[int(tagger.guess("formation").argmax())] == "nn"
    (found,) = tagger.tag([["It", "said", "the", "formation", "xqz", "."]])
    assert found[:4] == ["pps", "vbd", "at", "nn"]
    assert found[5] == "."


def test_a_sentence_that_nothing_like_was_seen_of_still_gets_tags(document: TaggedDocument) -> None:
    tagger = Tagger.learn(document.sentences)
    assert [len(tags) for tags in tagger.tag([["." for _ in range(5)], [], ["qq"] * 40])] == [5, 0, 40]
    assert tagger.tag([]) == []


def test_it_knows_what_it_learned_better_than_the_most_frequent_tags(document: TaggedDocument) -> None:
    tagger = Tagger.learn(document.sentences[:4])
    own = tagger.measure(document.sentences[:4])
    assert own.unknown_words == 0
    assert own.right >= own.baseline_right
    assert own.right / own.words > 0.95
    other = tagger.measure(document.sentences[4:]).to_json()
    assert other["unknown_words"] == 7  # It urged take steps remedy this problem
    assert other["words"] == 14
    parts = other["known_accuracy"] * other["known_words"] + other["unknown_accuracy"] * other["unknown_words"]
    assert parts == pytest.approx(other["accuracy"] * other["words"])


def test_tags_of_brown() -> None:
    wanted = {
        "np-tl": ("np", "NOUN"),
        "nn-tl-hl": ("nn", "NOUN"),
        "fw-at-tl": ("fw", "X"),
        "pps+bez": ("pps+bez", "PRON"),
        "hvd*": ("hvd*", "VERB"),
        "*": ("*", "ADV"),
        "*-hl": ("*", "ADV"),
        "--": ("--", "."),
        "wps": ("wps", "PRON"),
        "pp$": ("pp$", "DET"),
    }
    assert {tag: (brown_tag(tag), universal_tag(tag)) for tag in wanted} == wanted


def test_words_may_hold_slashes_and_lines_that_are_wrong_are_named(tmp_path: Path) -> None:
    assert read_sentence("1/2/cd and/cc", "given", "line 1").words == ["1/2", "and"]
    (tmp_path / "good").write_text("\n\tThe/at  jury/nn\n\n./.\n")
    (tmp_path / "README").write_text("No tags here.\n")
    (document,) = read_tagged([tmp_path])
    assert [sentence.words for sentence in document.sentences] == [["The", "jury"], ["."]]
    (tmp_path / "bad").write_text("The/at\nThe jury/nn\n")
    with pytest.raises(UsageError, match=r'"The" in .*bad, line 2'):
        read_tagged([tmp_path])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="There is no tagged text"):
        read_tagged([empty])
    with pytest.raises(UsageError, match="There is no"):
        read_tagged([tmp_path / "nowhere"])


def test_holding_out_takes_whole_documents_or_sentences_of_the_only_one(document: TaggedDocument) -> None:
    many = [document._replace(name=str(i)) for i in range(25)]
    learn, measure = hold_out(many, 10)
    assert [one.name for one in measure] == ["9", "19"]
    assert len(learn) == 23
    learn, measure = hold_out([document], 5)
    assert (len(all_sentences(learn)), len(all_sentences(measure))) == (4, 1)
    with pytest.raises(UsageError, match="too few"):
        hold_out([document], 10)


def test_a_saved_tagger_is_the_same_tagger(document: TaggedDocument, tmp_path: Path) -> None:
    tagger = Tagger.learn(document.sentences)
    tagger.save(tmp_path)
    loaded = Tagger.load(tmp_path)
    sentences = [sentence.words for sentence in document.sentences] + [["Unseen", "blargs", "happened"]]
    assert loaded.tag(sentences) == tagger.tag(sentences)
    with pytest.raises(UsageError, match="no tagger at"):
        Tagger.load(tmp_path / "nowhere")
    (tmp_path / "tagger.safetensors").write_bytes(b"x")
    with pytest.raises(Failure, match="cannot be read"):
        Tagger.load(tmp_path)


def test_the_command_learns_tags_and_measures(tmp_path: Path) -> None:
    (tmp_path / "tagged.txt").write_text(BROWN)

    def textmill(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "textmill", "tag", *words]
        return subprocess.run(command, cwd=tmp_path, input=text, capture_output=True, text=True)

    made = textmill("train", "tagged.txt", "--out", "tagger", "--held-out", "5", "--tagset", "brown", "--json")
    assert made.returncode == 0, made.stderr
    figures = json.loads(made.stdout)
    assert figures["held_out"]["words"] == 14
    assert figures["words"] == len({token.rpartition("/")[0] for token in BROWN.split()})
    tagged = textmill("-", "--tagger", "tagger", text="The jury said it took place.\n")
    assert tagged.stdout == "The/at jury/nn said/vbd it/pps took/vbd place/nn ./.\n"
    measured = json.loads(textmill("measure", "tagged.txt", "--tagger", "tagger", "--json").stdout)
    assert measured["unknown_words"] == 0
    wrong = textmill("tagged.txt", "--tagger", "nowhere")
    assert wrong.returncode == 2
    assert "textmill tag train" in wrong.stderr
