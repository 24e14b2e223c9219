"""Options that every command has, declared once: `json: Json = False, quiet: Quiet = False`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Group, Parameter

EVERY = Group("Every command", sort_key=99)

Json = Annotated[bool, Parameter(name="--json", negative="", group=EVERY, help="Print one JSON object for scripts.")]
Quiet = Annotated[bool, Parameter(name="--quiet", negative="", group=EVERY, help="Show no progress.")]
