"""What the page shows beside the models: their runs' reports and texts. Reads runs.

Texts that a model was made of are its owner's: only an administrator's key sees them, or anybody on the machine itself
while the server asks for no key.

Annotations are evaluated at once in this file (no `__future__` import): FastAPI reads those of functions inside others.
"""

import asyncio
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from fastapi import Depends, FastAPI, Query
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from textmill.serving.errors import ApiError
from textmill.serving.keys import Key
from textmill.serving.library import Library

PAGE = Path(__file__).parent / "page"
TICKET_SECONDS = 60.0
ABRIDGED = 400
"""Characters of a document in a list."""
COLUMNS = ["id", "text", "source", "language", "split", "characters"]
REPORT_HEADERS = {
    # The report is one file with scripts of its own; in this frame they reach neither the page nor the server.
    "Content-Security-Policy": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Cache-Control": "no-store",
}


def add_page(app: FastAPI, library: Library, caller: Any) -> None:
    """Add the page, and the routes that only it uses.

    Args:
        app: the application.
        library: the models.
        caller: dependency that says whose request it is.
    """
    tickets: dict[str, tuple[str, float]] = {}

    def run_of(name: str, key: Key) -> Path:
        if not key.admin:
            raise ApiError(403, "The run's texts and report are for administrators' keys.", code="not_admin")
        run = library.get(name).run
        if run is None:
            raise ApiError(404, f"{name} is a model without a run: there is neither report nor corpus.", "model")
        return run

    @app.post("/page/{name}/report", include_in_schema=False)
    async def report_ticket(name: str, key: Annotated[Key, Depends(caller)]) -> dict[str, str]:
        """An address for the report, good for a minute: a frame cannot send a key."""
        run = run_of(name, key)
        if not (run / "report.html").exists():
            raise ApiError(404, f"There is no report yet. Type: textmill report {run}", "model")
        now = time.monotonic()
        for old in [ticket for ticket, (_, until) in tickets.items() if until < now]:
            del tickets[old]
        ticket = secrets.token_urlsafe(24)
        tickets[ticket] = name, now + TICKET_SECONDS
        return {"url": f"/page/report/{ticket}"}

    @app.get("/page/report/{ticket}", include_in_schema=False)
    async def report(ticket: str) -> FileResponse:
        """The report that a ticket is for."""
        name, until = tickets.get(ticket, ("", 0.0))
        if until < time.monotonic():
            raise ApiError(404, "This address of a report is no longer good; open the report again.")
        run = library.get(name).run
        assert run is not None, "tickets are for runs"
        return FileResponse(run / "report.html", headers=REPORT_HEADERS, media_type="text/html")

    @app.get("/page/{name}/documents", include_in_schema=False)
    async def documents(
        name: str,
        key: Annotated[Key, Depends(caller)],
        search: Annotated[str, Query(max_length=200)] = "",
        split: str = "",
        skip: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """Documents of the run's corpus: those that hold `search`, in the order of the corpus."""
        folder = run_of(name, key) / "corpus"
        return await asyncio.to_thread(find_documents, folder, search, split, skip, limit)

    @app.get("/page/{name}/documents/{document}", include_in_schema=False)
    async def document(name: str, document: str, key: Annotated[Key, Depends(caller)]) -> dict[str, Any]:
        """One document, whole."""
        folder = run_of(name, key) / "corpus"
        found = await asyncio.to_thread(one_document, folder, document)
        if found is None:
            raise ApiError(404, "There is no such document.")
        return found

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=PAGE), name="static")


def _corpus(folder: Path) -> pyarrow.dataset.Dataset:
    files = sorted(str(path) for path in folder.glob("documents-*.parquet"))
    if not files:
        raise ApiError(404, "This run has no corpus (any more).")
    return pyarrow.dataset.dataset(files, format="parquet")


def find_documents(folder: Path, search: str, split: str, skip: int, limit: int) -> dict[str, Any]:
    """A page of the documents that hold a text.

    Args:
        folder: the corpus.
        search: what they hold, upper or lower case alike; "" for all.
        split: "train", "validation", "test" or "" for all.
        skip: matches to leave out.
        limit: matches to return.

    Returns:
        `documents` (the text cut to the surroundings of its first match), and `more`: whether further ones follow.
    """
    corpus = _corpus(folder)
    wanted = None
    if split:
        wanted = pc.field("split") == split
    if search:
        holds = pc.match_substring(pc.field("text"), search, ignore_case=True)
        wanted = holds if wanted is None else wanted & holds
    found: list[dict[str, Any]] = []
    left = skip
    for batch in corpus.to_batches(columns=COLUMNS, filter=wanted, batch_size=256):
        if left >= batch.num_rows:
            left -= batch.num_rows
            continue
        rows = batch.slice(left, limit + 1 - len(found))
        left = 0
        found += pa.Table.from_batches([rows]).to_pylist()
        if len(found) > limit:
            break
    return {"documents": [_abridged(one, search) for one in found[:limit]], "more": len(found) > limit}


def _abridged(row: dict[str, Any], search: str) -> dict[str, Any]:
    text = row["text"]
    place = max(0, text.lower().find(search.lower())) if search else 0
    begin = max(0, place - ABRIDGED // 4)
    cut = text[begin : begin + ABRIDGED]
    return {**row, "text": f"{'…' if begin else ''}{cut}{'…' if begin + ABRIDGED < len(text) else ''}"}


def one_document(folder: Path, document: str) -> dict[str, Any] | None:
    """A document by its id, whole; None if there is none."""
    found = _corpus(folder).to_table(columns=COLUMNS, filter=pc.field("id") == document).to_pylist()
    return found[0] if found else None
