"""HTML to text: the main content of a page, or all that its reader would see. Touches nothing.

Resiliparse parses the page and tells content from the rest by the names and roles of elements. Rules of our own stand
around it, each of which names its reason; `python -m bench.html` measures what they are worth.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

NAVIGATION = {
    "navheader": ".navheader",
    "navfooter": ".navfooter",
    "navbar": ".navbar, [class*='-navbar']",
    "breadcrumb": "[class*='breadcrumb']",
    "pagination": "[class*='pagination']",
    "headerlink": ".headerlink",
    "editsection": ".editsection, .mw-editsection",
    "printfooter": ".printfooter",
}
"""Elements that hold ways to other places, by the names that generators and web designers give them: a word that is in
the source of every page with such elements, and their selector. Matching a selector at every element takes time, and
most pages do not even hold the word. What elements and roles themselves call navigation, Resiliparse leaves out."""

ROLES = ["nav", "[role='navigation']", "[role='search']"]
"""The same by their own account; these stay out where all text is taken for want of a main content."""

CONTENTS = [".toc", ".contents", ".toctree-wrapper", ".table-of-contents", "[class*='related-']", "[class*='see-also']"]
"""Lists of what stands elsewhere: precise leaves them out too."""

BOXES = ".sidebar, aside"
"""Elements that are taken for navigation by their names, and sometimes hold prose (a box in a textbook)."""

BOX_CHARACTERS = 200
BOX_LINKS = 0.25
"""Such an element is content with at least so many characters, of which at most this share is linked."""

BOX_SENTENCE = 250
"""It has a sentence's end for every so many characters; menus have none."""

MOST_BOXES = 100
"""On a page with more of them they are lists of something."""

LINKED = 0.6
LINKED_ALONE = 0.8
"""precise: lines of which a larger share is linked are navigation when they follow each other, or stand alone."""

LEAST = 0.25
"""precise: of a page without main content, what is left after that must be at least this share."""

_TAG = re.compile(r"<[^<>]*>")
_SENTENCE = re.compile(r"[a-zà-ÿ\u0400-\u04ff)”\"][.!?](?=[\s<])|[。！？]")
_LINK = re.compile(r"<a\s[^<>]{0,4000}>(.{0,4000}?)</a>", re.S | re.I)
_OPENING = re.compile(r"<a\s[^<>]{0,4000}?href[^<>]{0,4000}>", re.I)
_CLOSING = re.compile(r"</a\s*>", re.I)
_BEGIN, _END = "\ue0f0", "\ue0f1"
_SPAN = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_MARKS = re.compile(f"[{_BEGIN}{_END}]")
_BULLET = re.compile(r"^[\s•\d.]+")


DEEPEST = 500
DEEPEST_UNCLOSED = 5_000
"""A page nested deeper is refused: telling content from the rest takes time in the square of the depth. Elements whose
ends authors leave out (<p>, <li>, <td> …) count towards the second limit only."""

_VOID = ("br", "hr", "im", "me", "wb", "ba", "ar", "so", "co", "!-", "!d")
_UNCLOSED = ("li", "td", "tr", "th", "dt", "dd", "op")


def _codes(names: tuple[str, ...]) -> np.ndarray:
    return np.array([256 * ord(name[0]) + ord(name[1]) for name in names])


class TooDeep(ValueError):
    """A page whose elements are nested absurdly deep."""


def _check_depth(page: str) -> None:
    """Raise `TooDeep` where elements may be nested beyond `DEEPEST`, by counting opening and closing tags."""
    if page.count("<") < DEEPEST:
        return
    data = np.frombuffer(page.encode("utf-8", "replace") + b"\0\0\0", np.uint8)
    tags = np.flatnonzero(data[:-3] == ord("<"))
    closing = data[tags + 1] == ord("/")
    name = tags + 1 + closing
    first, second = data[name].astype(np.int64) | 32, data[name + 1].astype(np.int64) | 32
    code = 256 * first + second
    paragraph = (first == ord("p")) & ((second < ord("a")) | (second > ord("z")))
    element = (first >= ord("a")) & (first <= ord("z")) & ~np.isin(code, _codes(_VOID))
    unclosed = paragraph | np.isin(code, _codes(_UNCLOSED))
    step = np.where(closing, -1, 1) * element
    for steps, limit in ((step * ~unclosed, DEEPEST), (step, DEEPEST_UNCLOSED)):
        depth = np.concatenate([[0], np.cumsum(steps)])
        deepest = int((depth - np.minimum.accumulate(depth)).max())
        if deepest > limit:
            raise TooDeep(f"elements nested {deepest} deep")


def html_text(page: str, extractor: str = "fast") -> str:
    """Readable text of an HTML page.

    Args:
        page: the page's source.
        extractor: "fast" for the main content, all visible text when none is found; "precise" for the same without
            lists of links and tables of contents; "none" for all visible text.

    Raises:
        TooDeep: its elements are nested absurdly deep.
    """
    _check_depth(page)
    if extractor == "none":
        return _extract(page)
    from resiliparse.parse.html import HTMLTree

    skip = [selector for word, selector in NAVIGATION.items() if word in page]
    precise = extractor == "precise"
    tree = HTMLTree.parse(_with_marks(page) if precise else page)
    if tree.body is None:
        return ""
    if 'class="sidebar' in page or "<aside" in page:
        _keep_boxes(tree)
    if precise:
        return _precise(tree, page, skip)
    text = _extract(tree, main_content=True, skip_elements=skip)
    if not text.strip():
        text = _extract(tree, skip_elements=skip + ROLES)
        return text if text.strip() else _extract(tree)
    return text


def _precise(tree: Any, page: str, skip: list[str]) -> str:
    """The main content without lists of links; all text where none is found, unless most of it is links."""
    for left_out in (skip + CONTENTS, skip):
        text = _without_link_lists(_extract(tree, main_content=True, skip_elements=left_out))
        if text.strip():
            return text
    text = _without_link_lists(_extract(tree, skip_elements=skip + ROLES))
    return text if len(text) > LEAST * len(_extract(page)) else ""


def _extract(page: Any, **options: Any) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(page, **{"preserve_formatting": True, "alt_texts": False, **options}))


def _with_marks(page: str) -> str:
    """The page with a mark at either end of every link's text; the marks show in the text what was linked."""
    page = _OPENING.sub(lambda match: match.group() + _BEGIN, _MARKS.sub("", page))
    return _CLOSING.sub(lambda match: _END + match.group(), page)


def _keep_boxes(tree: Any) -> None:
    """Take the name away from a box of prose, so that it is not left out for it."""
    boxes = tree.body.query_selector_all(BOXES)
    if len(boxes) > MOST_BOXES:  # the list is walked in quadratic time
        return
    for box in list(boxes):
        source = box.html
        whole = len(_TAG.sub("", source))
        linked = sum(len(_TAG.sub("", link)) for link in _LINK.findall(source))
        sentences = len(_SENTENCE.findall(source))
        if whole >= BOX_CHARACTERS and linked <= BOX_LINKS * whole and sentences * BOX_SENTENCE >= whole:
            box.class_name = ""
            box.id = ""


def _without_link_lists(text: str) -> str:
    """A text without lines that are links, told by the marks around these; the marks go."""
    if _BEGIN not in text:
        return _MARKS.sub("", text)
    lines = text.split("\n")
    shares = []
    for line in lines:
        linked = sum(map(len, _SPAN.findall(line))) if _BEGIN in line else 0
        shares.append(linked / max(1, len(_BULLET.sub("", _MARKS.sub("", line)).rstrip())) if linked else 0.0)
    kept = []
    before = 0.0
    following = [0.0] * len(lines)
    for at in range(len(lines) - 2, -1, -1):  # the share of the next line that is not blank
        following[at] = shares[at + 1] if lines[at + 1].strip() else following[at + 1]
    for line, share, after in zip(lines, shares, following, strict=True):
        listed = share > LINKED and (before > LINKED or after > LINKED)
        if not listed and share <= LINKED_ALONE:
            kept.append(line)
        if line.strip():
            before = share
    return _MARKS.sub("", "\n".join(kept))
