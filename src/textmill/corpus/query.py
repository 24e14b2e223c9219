"""SQL over a finished corpus, through DuckDB. Reads `documents-*.parquet` and `rejected-*.parquet`, writes nothing."""

from __future__ import annotations

from typing import Any

from textmill.base.errors import UsageError
from textmill.base.run import Run


def ask(run: Run, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Answer one statement over the tables `documents` and `rejected`.

    Returns:
        the names of the columns, and the rows.

    Raises:
        UsageError: DuckDB is not installed, or the statement is wrong or would write.
    """
    folder = run.require("corpus", f"textmill corpus my_texts/ --out {run.path}")
    try:
        import duckdb
    except ImportError as error:
        raise UsageError(
            "Queries need DuckDB.", "It is not installed here.", 'Type: pip install "textmill[query]"'
        ) from error
    with duckdb.connect() as connection:
        for name in ("documents", "rejected"):
            files = sorted(str(path) for path in folder.glob(f"{name}-*.parquet"))
            connection.from_parquet(files, union_by_name=True).create_view(name)
        # The statement may be anybody's: no other file is read, nothing is written, no extension loaded.
        connection.execute(f"SET allowed_directories = ['{str(folder.resolve()).replace(chr(39), chr(39) * 2)}/']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        try:
            answer = connection.execute(sql)
            names = [column[0] for column in answer.description or []]
            return names, answer.fetchall()
        except duckdb.Error as error:
            lines = str(error).strip().splitlines()
            raise UsageError(
                "The query could not be answered.",
                " ".join(line.strip() for line in lines[:3]),
                'The tables are documents and rejected; type: textmill corpus query "describe documents" --out RUN',
            ) from error
