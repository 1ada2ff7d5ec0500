"""Neutralise what came from a message or a broker before a terminal or a log shows it.

Queue names, headers, bodies and error texts are written by others. Escape sequences, C1 controls and bidirectional
overrides would act on the reader's terminal (CWE-150), and rich lets them through.
"""

from __future__ import annotations

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0xFEFF)
_TABLE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_TABLE.update({code: f"\\u{code:04x}" for code in _BIDI})
_TABLE.update({code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)})  # lone surrogates cannot be encoded
_MULTILINE = {code: text for code, text in _TABLE.items() if code not in (0x09, 0x0A)}


def safe(value: object, *, multiline: bool = False) -> str:
    """Return `value` as text in which nothing acts on a terminal; with `multiline`, newlines and tabs stay.

    Bytes are decoded as UTF-8, with `\\xNN` for what is not.
    """
    text = bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    return text.translate(_MULTILINE if multiline else _TABLE)
