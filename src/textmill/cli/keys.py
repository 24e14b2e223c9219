"""`textmill keys`: who may use a server. Reads and writes the store of keys."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from textmill.cli.options import Json
from textmill.serving.config import DEFAULT_KEYS

HELP = """API keys of `textmill serve`: make, list, revoke, and see what they have used.

Once there is a key, every request needs one: the header Authorization: Bearer KEY.

Examples:

    textmill keys create alice --requests-per-minute 60 --tokens-per-day 100000

    textmill keys list

    textmill keys revoke alice
"""
app = App(name="keys", help=HELP, help_format="markdown")
Store = Annotated[str, Parameter(name="--keys")]


def _store(place: str):  # type: ignore[no-untyped-def]
    from textmill.serving.keys import KeyStore

    return KeyStore(place)


@app.command
def create(
    name: str,
    /,
    *,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    admin: bool = False,
    keys: Store = DEFAULT_KEYS,
    json: Json = False,
) -> None:
    """Make a key. It is shown once; only its hash is kept.

    Parameters
    ----------
    name
        Whose key it is.
    requests_per_minute
        Most requests in any minute; left out, no limit.
    tokens_per_day
        Most tokens, read and written, in a day (UTC); left out, no limit.
    admin
        The key may load and unload models.
    keys
        File or database URL of the keys.
    """
    import json as json_format

    key = _store(keys).create(
        name, admin=admin, requests_per_minute=requests_per_minute, tokens_per_day=tokens_per_day
    )  # fmt: skip
    if json:
        print(json_format.dumps({"name": name, "key": key}))
        return
    print(key)
    print(f'Keep it now: it is not shown again. Send it as the header "Authorization: Bearer {key[:6]}…".')


@app.command(name="list")
def list_(*, keys: Store = DEFAULT_KEYS, json: Json = False) -> None:
    """The keys and their limits; void ones are marked.

    Parameters
    ----------
    keys
        File or database URL of the keys.
    """
    import dataclasses
    import datetime
    import json as json_format

    found = _store(keys).all()
    if json:
        print(json_format.dumps([dataclasses.asdict(key) for key in found]))
        return
    if not found:
        print("There is no key yet. Make one: textmill keys create NAME")
    for key in found:
        limits = [
            f"{key.requests_per_minute} requests a minute" if key.requests_per_minute else "",
            f"{key.tokens_per_day:,} tokens a day" if key.tokens_per_day else "",
            "administrator" if key.admin else "",
            "revoked" if key.revoked else "",
        ]
        made = datetime.datetime.fromtimestamp(key.created).strftime("%Y-%m-%d")
        print(f"{key.name:<20} made {made}   {', '.join(one for one in limits if one) or 'no limits'}")


@app.command
def revoke(name: str, /, *, keys: Store = DEFAULT_KEYS, json: Json = False) -> None:
    """Make a key void; a running server takes note within seconds.

    Parameters
    ----------
    name
        Whose key.
    keys
        File or database URL of the keys.
    """
    import json as json_format

    _store(keys).revoke(name)
    print(json_format.dumps({"name": name, "revoked": True}) if json else f"The key of {name} is void.")


@app.command
def usage(*, keys: Store = DEFAULT_KEYS, json: Json = False) -> None:
    """What each key has used, day by day (UTC).

    Parameters
    ----------
    keys
        File or database URL of the keys.
    """
    import json as json_format

    found = _store(keys).usage()
    if json:
        print(json_format.dumps(found))
        return
    if not found:
        print("Nothing has been used yet.")
    for row in found:
        print(
            f"{row['day']}  {row['name']:<20} {row['requests']:>8,} requests {row['prompt_tokens']:>12,} tokens read "
            f"{row['completion_tokens']:>12,} written"
        )
