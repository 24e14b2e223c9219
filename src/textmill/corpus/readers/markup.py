"""XML as a stream of events, safely: nothing is fetched, no entity is expanded, nesting is bounded. Touches nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.entities import html5
from typing import BinaryIO
from xml.parsers import expat

from textmill.corpus.readers.reading import Unreadable

DEEPEST = 200
"""Nesting beyond this is no document."""

_BLOCK = 1 << 18
_CHARACTER = re.compile(r"&#(x[0-9a-fA-F]{1,6}|[0-9]{1,7});")
_REFERENCE = re.compile("&([^;&#]+);")
_LAYERS = 2
"""Entities built of entities of plain text are usual in a document type; more layers only serve to explode."""

_PLAIN_ENTITY = 200
"""An entity that stands for text up to this length, without another entity in it, is replaced; no other is."""


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class Events:
    """Calls back for each element and text of an XML stream.

    Args:
        start: called with an element's name (without its prefix) and attributes.
        end: called with its name.
        text: called with character data.

    Raises:
        Unreadable: not well-formed, nested too deep.
    """

    def __init__(
        self,
        start: Callable[[str, dict[str, str]], None],
        end: Callable[[str], None],
        text: Callable[[str], None],
    ) -> None:
        self._start, self._end, self._text = start, end, text
        self._entities: dict[str, str] = {}
        self._layers: dict[str, int] = {}
        self._depth = 0
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.UseForeignDTD(True)  # else a name like &nbsp; that only the DTD defines would be an error
        parser.StartElementHandler = self._opened
        parser.EndElementHandler = self._closed
        parser.CharacterDataHandler = text
        parser.EntityDeclHandler = self._declared
        parser.DefaultHandler = self._other  # its presence keeps the parser from expanding entities itself
        parser.SkippedEntityHandler = lambda name, is_parameter: None if is_parameter else self._entity(name)
        self.parser = parser

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable(f"refused: elements nested more than {DEEPEST} deep")
        self._start(_local(name), attributes)

    def _closed(self, name: str) -> None:
        self._depth -= 1
        self._end(_local(name))

    def _declared(self, name: str, parameter: int, value: str | None, *_: object) -> None:
        if not parameter and value is not None:
            self._layers[name] = 1 + max((self._layers.get(one, 0) for one in _REFERENCE.findall(value)), default=0)
        if not parameter and value is not None and len(value) <= _PLAIN_ENTITY and not set("&<%") & set(value):
            self._entities[name] = value

    def _other(self, data: str) -> None:
        if self._depth and data.startswith("&") and data.endswith(";"):
            self._entity(data[1:-1])

    def _entity(self, name: str) -> None:
        if self._layers.get(name, 0) > _LAYERS:
            raise Unreadable(f"refused: the entity {name} is built of entities {_LAYERS + 1} layers deep, a bomb")
        value = self._entities.get(name) or html5.get(name + ";", "")
        if value:
            self._text(value)

    def feed(self, data: bytes, last: bool = False) -> None:
        """Parse some bytes."""
        try:
            self.parser.Parse(data, last)
        except expat.ExpatError as error:
            raise Unreadable(f"not well-formed XML ({error})") from error

    def run(self, stream: BinaryIO) -> None:
        """Parse a stream to its end."""
        while data := stream.read(_BLOCK):
            self.feed(data)
        self.feed(b"", True)
