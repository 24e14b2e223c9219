"""Chinese measures equal their definitions; each rule drops what it is for and keeps prose."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import rjieba
from hypothesis import given, settings
from hypothesis import strategies as st

from textmill.base.errors import UsageError
from textmill.corpus.judging import chinese
from textmill.corpus.judging.chinese import CHINESE_WEB_TEXT_RULES, COLUMNS, MAP_CC_RULES, measure
from textmill.corpus.judging.rules import Rule, decide
from textmill.corpus.texts import Texts

PROSE = (
    "清晨，太阳从东边的山后慢慢升起，把金色的光洒在村庄的屋顶上。\n老人牵着牛走过石桥，桥下的河水静静流向远方，"
    "几只白鹭站在浅滩上等待小鱼。\n孩子们背着书包去学校，一路说说笑笑，谈论昨天晚上看的电影和今天要考的数学。\n"
    "镇上的集市已经热闹起来，卖菜的、修鞋的、写对联的，各有各的地方。\n一位年轻的医生刚从省城回来，他决定在家乡开一间诊所，"
    "让乡亲们不用再走几十里路看病。\n大家都说这是好事，有人送来木料，有人帮忙刷墙，不到一个月房子就修好了。\n"
    "秋天到了，田里的稻子成熟，机器在收割，空气里全是新米的香味。\n"
)


def first(texts: list[str], rules: tuple[Rule, ...]) -> list[str]:
    columns = measure(Texts.from_strings(texts))
    columns["language_confidence"] = np.ones(len(texts))
    found = decide(rules, columns, np.full(len(texts), "zh"))
    return [rules[number].name if number >= 0 else "" for number in found.rule.tolist()]


def top(characters: str, n: int) -> int:
    often = Counter(characters[at : at + n] for at in range(len(characters) - n + 1))
    best = max(often.values(), default=0)
    return n * best if best > 1 else 0


def repeated(characters: str, n: int) -> int:
    seen: set[str] = set()
    at = total = 0
    while at + n <= len(characters):
        part = characters[at : at + n]
        if part in seen:
            total += n
            at += n
        else:
            seen.add(part)
            at += 1
    return total


@settings(deadline=None)
@given(st.lists(st.text(alphabet="天地玄黄12。！… \n【】#.-a", max_size=80), max_size=4))
def test_measures_equal_their_definitions(strings: list[str]) -> None:
    found = measure(Texts.from_strings(strings))
    assert set(found) == set(COLUMNS)
    for row, string in enumerate(strings):
        visible = "".join(string.split())
        for n in (2, 3, 4):
            assert found[f"zh_top_{n}gram"][row] == (top(visible, n) / len(visible) if visible else 0)
        for n in (5, 6, 7, 8, 9, 10, 13):
            assert found[f"zh_duplicate_{n}gram"][row] == (repeated(visible, n) / len(visible) if visible else 0)
        size = len(string)
        assert found["zh_characters"][row] == size
        assert found["zh_unique_share"][row] == (len(set(string)) / size if size else 0)
        assert found["zh_bracket_share"][row] == (sum(c in "【】" for c in string) / size if size else 0)
        assert found["zh_digit_share"][row] == (sum(c.isdigit() for c in string) / size if size else 0)
        lines = [line for line in string.split("\n") if line.strip()]
        bullets = sum(line.strip().startswith("-") for line in lines)
        assert found["zh_bullet_lines"][row] == (bullets / len(lines) if lines else 0)
        words = [word for word in rjieba.cut(string) if not word.isspace()]
        if words:
            assert found["zh_words"][row] == len(words)
            assert found["zh_mean_word_length"][row] == sum(map(len, words)) / len(words)
            entropy = -sum(c / len(words) * math.log(c / len(words)) for c in Counter(words).values())
            assert found["zh_word_entropy"][row] == pytest.approx(entropy, abs=1e-9)
        else:
            assert np.isnan(found["zh_words"][row])


def test_rules_keep_prose_and_drop_what_they_are_for() -> None:
    menu = "首页\n新闻\n体育\n财经\n娱乐\n科技\n汽车\n房产\n" * 8
    advert = "【特价】【包邮】【新款】【热卖】手机壳批发。厂家直销，全场五折。" * 3
    preview = "\n".join(f"{line[:24]}更多" for line in PROSE.split("\n"))
    table = "\n".join(f"{number}月销量{number * 7919},{number * 104729}台。" for number in range(1, 30))
    twice = PROSE[:120] * 4
    assert first([PROSE, menu, advert, preview, table, twice], MAP_CC_RULES) == [
        "",
        "map_cc_sentences",
        "map_cc_brackets",
        "map_cc_sentences",
        "map_cc_digits",
        "map_cc_duplicate_5gram",
    ]
    assert first([PROSE, menu, "短文。", "English words only, " * 20 + "中文", twice], CHINESE_WEB_TEXT_RULES) == [
        "",
        "chinese_web_short_lines",
        "chinese_web_short_lines",
        "chinese_web_han",
        "chinese_web_duplicates",
    ]


def test_a_poem_fails_the_rules_for_web_pages() -> None:
    """Which is why no dialect applies unless asked."""
    poem = "静夜思\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"
    assert first([poem], MAP_CC_RULES) == ["map_cc_short"]
    assert first([poem], CHINESE_WEB_TEXT_RULES) == ["chinese_web_short_lines"]


def test_thresholds_at_the_edge() -> None:
    rules = {rule.name: rule for rule in chinese.RULES}
    assert rules["map_cc_duplicate_5gram"].drops(np.array([0.6])).all()
    assert not rules["map_cc_top_2gram"].drops(np.array([0.2])).any()
    assert rules["map_cc_unique"].drops(np.array([0.1])).all()
    assert not rules["chinese_web_short"].drops(np.array([200])).any()
    assert all(rule.column in COLUMNS or rule.column == "language_confidence" for rule in chinese.RULES)
    assert all(rule.languages == ("zh",) and rule.source for rule in chinese.RULES)


def test_without_the_extra_words_are_unknown_and_their_rules_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chinese.importlib.util, "find_spec", lambda name: None)
    found = measure(Texts.from_strings([PROSE]))
    assert np.isnan(found["zh_word_entropy"][0])
    assert found["zh_han_share"][0] > 0.8
    with pytest.raises(UsageError, match=r'pip install "textmill\[chinese\]"'):
        chinese.check(MAP_CC_RULES)
    chinese.check(CHINESE_WEB_TEXT_RULES)
