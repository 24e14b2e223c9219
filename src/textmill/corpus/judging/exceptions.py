"""Strings that the English word splitter treats as one word, or cuts at a fixed place: contractions, abbreviations,
emoticons, and units after a number. Generated from rules; spaCy's English tokenizer knows the same strings. Touches
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

Cuts = tuple[str, ...]

_STATES = (
    "Ak Ala Ariz Ark Calif Colo Conn Del Fla Ga Ia Id Ill Ind Kan Kans Ky La Mass Md Mich Minn Miss Mo Mont Neb Nebr "
    "Nev Okla Ore Pa Tenn Va Wash Wis N.C N.D N.H N.J N.M N.Y S.C D.C"
)
_MONTHS = "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
_TITLES = "Adm Bros Co co Corp Dr Gen Gov Inc Jr Ltd Messrs Mr Mrs Ms Mt Ph.D Prof Rep Rev Sen St vs v.s a.m p.m"
_LATIN = "e.g E.g E.G i.e I.e I.E"
_CLIPPED = "doin goin nothin nuthin somethin havin lovin ol"
_APOSTROPHE = "'cause 'Cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout 'em 'nuff 'd 'll 're 's 'S ‘s ‘S"
_WHOLE = "em ll nuff and/or w/o ma'am Ma'am o'clock O'clock C++ ' '' \\\") \\n \\t <space> —"
_PIECES = (
    "y' all|y all|how 'd 'y|How 'd 'y|not 've|not ve|Not 've|Not ve|can not|Can not|gon na|Gon na|got ta|Got ta|"
    "let 's|Let 's|c'm on|C'm on"
)
_ORDINARY = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"
"""Words that look like a contraction without its apostrophe and are not cut."""


def _both(word: str) -> tuple[str, str]:
    return word, word.title()


def _attached(words: str, endings: str) -> Iterator[Cuts]:
    """Each word with each ending; an ending `'ll've` is two pieces, and its apostrophes may be missing."""
    for word, ending in product(words.split(), endings.split()):
        pieces = tuple(ending.replace("'", " '").replace("n '", "n'").split())
        for form in _both(word):
            yield (form, *pieces)
            yield (form, *(piece.replace("'", "") for piece in pieces))


def _contractions() -> Iterator[Cuts]:
    subjects, questions = "i you he she it we they", "who what when where why how there that this"
    plural = "these those"
    yield from _attached(subjects, "'ll 'll've 'd 'd've")
    yield from _attached("i you we they", "'ve")
    yield from _attached("you we they", "'re")
    yield from _attached("he she it", "'s")
    yield from _attached("i", "'m")
    for form in _both("i"):
        yield form, "'m", "a"
        yield form, "m", "a"
    yield from _attached(f"{questions} {plural}", "'ll 'll've 'd 'd've")
    yield from _attached(questions, "'s")
    yield from _attached(f"who what when where why how there {plural}", "'re 've")
    verbs = "ca could do does did had may might must need ought sha should wo would"
    yield from _attached(verbs, "n't n't've")
    yield from _attached("could might must should would", "'ve")
    yield from _attached("ai are is was were have has dare", "n't")
    for hour, half in product(range(1, 13), ("a.m.", "am", "p.m.", "pm")):
        yield str(hour), half


def _emoticons() -> Iterator[str]:
    """Faces by eyes, nose and mouth, then those that follow no rule."""
    for nose in ("", "-"):
        for mouth in (")", "))", ")))", "(", "((", "(((", "]", "}", "/", "|", "P", "p", "O", "o", "0", "*", "3", ">"):
            yield ":" + nose + mouth
        for mouth in "XxD":
            yield ":" + nose + mouth
        yield from (f":'{nose}(", f":'{nose})", f"8{nose})", f"8{nose}D", f";{nose})", f";{nose}D")
        yield from (f"({nose}:", f"({nose};", f"[{nose}:", f"){nose}:")
    yield from (f"={mouth}" for mouth in ")(/|[]3D")
    yield from ("(=", "[=", "]=", ":o)", "(o:", "(-8", ":1", ":()", ">:o", ">:(", "xD", "XD", "xDD", "XDD")
    yield from (f"{eyes}{mouth}{eyes}" for eyes, mouth in ("^_", ";_", "-_", "v.", "V.", "v_", "V_", "<.", ">.", "@_"))
    yield from ("^__^", "^___^", "-__-", ">.<", "._.", "0.0", "o.0", "0.o")
    yield from (f"{left}{mouth}{right}" for left, right in product("oO", "oO") for mouth in "._")
    yield from ("0_0", "0_o", "o_0", "<3", "<33", "<333", "</3", "ಠ_ಠ", "ಠ︵ಠ", "(ಠ_ಠ)", "¯\\(ツ)/¯")
    yield from (f"({eyes}{mouth}{eyes})" for eyes, mouth in ("^_", "-_", "._", "*_", "¬_"))
    yield from ("(>_<)", "(╯°□°）╯︵┻━┻", "><(((*>")


def exceptions() -> dict[str, Cuts]:
    """Each string with the pieces that it is cut into; one piece keeps it whole."""
    found: dict[str, Cuts] = {}
    for cuts in _contractions():
        found["".join(cuts)] = cuts
    for line in _PIECES.split("|"):
        found[line.replace(" ", "")] = tuple(line.split())
    clipped = [form + end for word in _CLIPPED.split() for form in _both(word) for end in ("", "'")]
    dotted = [word + "." for word in f"{_STATES} {_MONTHS} {_TITLES} {_LATIN}".split()]
    letters = [letter + "." for letter in "abcdefghijklmnopqrstuvwxyzäöü"]
    for word in (*clipped, *dotted, *letters, *_APOSTROPHE.split(), *_WHOLE.split(), *_emoticons()):
        found[word] = (word,)
    for degree in "cfkCFK":
        found[f"°{degree}."] = ("°", degree, ".")
    for word in _ORDINARY.split():
        found.pop(word, None)
    for word, pieces in list(found.items()):
        if "'" in word:
            found[word.replace("'", "’")] = tuple(piece.replace("'", "’") for piece in pieces)
    return found


def units() -> set[str]:
    """Units of measurement and currencies that are split off a number, `10km` or `5US$`."""
    lengths = "km m dm cm mm км м дм см мм كم م سم مم"
    found = {length + power for length, power in product(lengths.split(), ("", "²", "³"))}
    latin = "ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K %"
    cyrillic = "нм кг г мг м/с км/ч кПа Па мбар кб Кб КБ мб Мб МБ гб Гб ГБ Тб ТБ тбكم"
    return found | set(f"{latin} {cyrillic} غرام جرام جم كغ ملغ كوب اكواب US$ C$ A$".split())
