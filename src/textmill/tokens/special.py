"""The special tokens and the rule for vocabulary sizes. Touches nothing."""

from __future__ import annotations

from textmill.base.errors import UsageError

END = "<|end|>"
"""Ends every document; also what every document begins after."""
PAD = "<|pad|>"
TURN_END = "<|turn_end|>"
ROLES = ("system", "user", "assistant")
NAMED = (END, PAD, *(f"<|{role}|>" for role in ROLES), TURN_END)
"""The special tokens that mean something; a tokenizer made elsewhere is given those that it lacks."""
SPECIAL_TOKENS: tuple[str, ...] = (*NAMED, *(f"<|reserved_{i}|>" for i in range(16 - len(NAMED))))
"""The special tokens of our own tokenizers, at ids 0 to 15."""

MULTIPLE = 64
"""Vocabularies are multiples of this, which matrix multiplication is fastest at."""
SMALLEST_VOCABULARY = -(-(len(SPECIAL_TOKENS) + 256) // MULTIPLE) * MULTIPLE
LARGEST_VOCABULARY = 65_536

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|turn_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def round_vocabulary(size: int) -> int:
    """`size` rounded up to a multiple of 64, checked against what is possible."""
    rounded = -(-size // MULTIPLE) * MULTIPLE
    if not SMALLEST_VOCABULARY <= rounded <= LARGEST_VOCABULARY:
        raise UsageError(
            f"A vocabulary of {size:,} is not possible.",
            f"It holds {len(SPECIAL_TOKENS)} special tokens, 256 bytes and what is learned, at most "
            f"{LARGEST_VOCABULARY:,} in all.",
            f"Choose from {SMALLEST_VOCABULARY:,} to {LARGEST_VOCABULARY:,}; 2048 to 65536 is usual.",
        )
    return rounded
