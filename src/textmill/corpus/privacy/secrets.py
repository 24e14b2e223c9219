"""Keys, tokens and passwords: by their issuers' formats, and by being random and assigned. Touches nothing."""

from __future__ import annotations

import base64
import json
import re

from textmill.corpus.privacy.checks import entropy

_FORMATS = re.compile(
    rb"(?:"
    rb"(?:AKIA|ASIA)[A-Z2-7]{16}"  # Amazon access key id
    rb"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255}"
    rb"|glpat-[A-Za-z0-9_-]{20,64}"
    rb"|xox[abeoprs]-[A-Za-z0-9-]{10,250}"  # Slack
    rb"|AIza[A-Za-z0-9_-]{35}"  # Google
    rb"|[srp]k_(?:live|test)_[A-Za-z0-9]{16,247}"  # Stripe
    rb"|sk-(?:[a-z]{2,12}[A-Za-z0-9]*-)*[A-Za-z0-9_-]{20,250}"  # OpenAI, Anthropic and those alike
    rb"|hf_[A-Za-z]{30,40}|hf_[A-Za-z0-9]{30,40}"
    rb"|npm_[A-Za-z0-9]{36}"
    rb"|pypi-[A-Za-z0-9_-]{50,250}"
    rb"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"  # SendGrid
    rb"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JSON web token
    rb")"
)
LONGEST_TOKEN = 8192
"""Bytes read of what looks like a key; a JSON web token with many claims has a few thousand."""

_ASSIGNED = re.compile(
    rb"(?i)(?:^|[^a-z])((?:[a-z0-9][a-z0-9_-]{0,40}?)?(?:password|passwd|passphrase|pwd|secret|token|(?:api|access|secret|private|auth|"
    rb"account|client|signing|encryption)[_-]?key))[\"']?[ \t]{0,2}(?::|=|:=|=>)$"
)
_VALUE = re.compile(
    rb"[=>]?[ \t]{0,2}(?:\"([^\"\s]{8,200})\"|'([^'\s]{8,200})'|([A-Za-z0-9+/_.~!@#$%^&*=-]{8,200})(?=$|[\s,;&]))"
)
_PLACEHOLDER = re.compile(
    rb"(?i)x{3,}|\*{3,}|\.{3}|example|sample|dummy|change|your|placeholder|redacted|password|passwd|secret|token|"
    rb"<|>|\$\{|\$\(|%\(|\{\{|foo|bar|test|none|null|true|false|1234|abcd|qwerty|\.get|\(|\)|\[|/etc/|/home/|://"
)
_PEM = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?)-----")
_PEM_BODY = re.compile(rb"[A-Za-z0-9+/=:,.\- \t\r\n\\]{16,16000}")

MIN_ENTROPY = 3.0
"""Bits per character below which an assigned value is taken for a word or a placeholder: English words have 2 to 2.8,
ten random letters and digits 3.1 or more, hexadecimal keys 3.3 to 3.9."""


def key_at(text: bytes) -> int:
    """Length of the key that `text` begins with, 0 for none."""
    match = _FORMATS.match(text)
    if match is None:
        return 0
    found = match[0]
    if found.startswith(b"eyJ"):
        return len(found) if _is_web_token(found) else 0
    body = found.split(b"_")[-1] if found[:2] not in (b"AK", b"AS", b"AI") else found[4:]
    rest = text[len(found) : len(found) + 1]
    if (rest.isalnum() or rest == b"_") and not found.startswith((b"SG.", b"sk-")):
        return 0
    if _PLACEHOLDER.search(found[6:]) and not found.startswith((b"sk-", b"xox")):
        return 0
    if found.startswith(b"sk-") and not (re.search(rb"\d", found) and re.search(rb"[A-Z]", found)):
        return 0  # sk-learn-like-names-in-lower-case
    return len(found) if entropy(body.decode()) >= 2.5 else 0


def _is_web_token(found: bytes) -> bool:
    head = found.split(b".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (ValueError, TypeError):
        return False


def assigned(before: bytes, after: bytes) -> tuple[int, int] | None:
    """Where in `after` the value of `password =` (or the like) stands, if it looks random.

    Args:
        before: what stands up to and with the sign of assignment.
        after: what follows.
    """
    name = _ASSIGNED.search(before)
    if name is None:
        return None
    value = _VALUE.match(after)
    if value is None:
        return None
    group = value.lastindex or 1
    text = value[group]
    if _PLACEHOLDER.search(text) or not re.search(rb"\d", text) or not re.search(rb"[A-Za-z]", text):
        return None
    if text[:1] in b"$@%&" and group == 3:
        return None  # a variable
    try:
        bits = entropy(text.decode())
    except UnicodeDecodeError:
        return None
    if group == 3 and (len(text) < 12 or b"." in text or bits < MIN_ENTROPY + 0.2):  # without quotes it is often code
        return None
    if bits < (MIN_ENTROPY if len(text) > 8 else 2.7):
        return None
    return value.span(group)


def private_key_at(text: bytes) -> int:
    """Length of the private key block that `text` begins with, 0 for none; one without an end counts as well."""
    head = _PEM.match(text)
    if head is None:
        return 0
    tail = text.find(b"-----END " + head[1] + b"-----", head.end(), head.end() + 16000)
    if tail >= 0 and re.search(rb"[A-Za-z0-9+/]{40}", text[head.end() : tail]):
        return tail + len(head[1]) + 14
    body = _PEM_BODY.match(text, head.end())
    return body.end() if body is not None and re.search(rb"[A-Za-z0-9+/]{40}", body[0]) else 0
