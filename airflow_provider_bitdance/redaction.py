"""Text that is fit for errors and logs: short, on one line, without URLs, secrets, whole prompts or control
characters."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection

PROMPT_SHOWN = 80
"""A prompt is shown to at most this many characters in errors and logs."""
IDS_SHOWN = 5

_API_TEXT_SHOWN = 200
_API_TEXT_READ = 5_000
_API_TEXT_SEARCHED = 64 * 2**10
_TEXT_READ = 10_000
_CLOSES = {'"': '"', "'": "'", "`": "`", "“": "”", "«": "»"}
_MARK = re.compile("[\"'`“”«»]")
_AFTER_URL = "\"'`”».,;:!?)]}>"
# Also as JSON or a query writes it, and without its scheme. Where a repetition has no bound, a hostile text
# takes the square of its length.
_URL = re.compile(
    r"https?(?::|%3a)(?:\\{0,8}/|%2f){2}\S+|(?<![\w:/\\])(?:\\{0,8}/){2}[\w-]{1,63}(?:\.[\w-]{1,63})+\S*",
    re.IGNORECASE,
)


SHORTEST_SECRET = 8
"""Characters. To mask a shorter one, as gateways may have, would make every text unreadable."""
_secrets: dict[str, re.Pattern[str]] = {}
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what a terminal or a log viewer obeys instead of showing it."""
_JOINERS = "\u200c\u200d"
"""Parts of Persian and Indic words, and of emoji."""


def hide(secret: str) -> None:
    """Mask a secret in errors and logs from now on, also where it is escaped as in JSON or in a URL."""
    if len(secret) >= SHORTEST_SECRET and secret not in _secrets:
        _secrets[secret] = re.compile("".join(_written(each) for each in secret))


def _written(character: str) -> str:
    """Return a pattern of a character as JSON (PHP's escapes a slash), URLs and HTML write it.

    Its repetitions have bounds: without them a text of backslashes takes the square of its length. And no two
    alternatives take the same text: a text that has the beginning of a key would take twice the time with
    each character.
    """
    code, plain, named = ord(character), re.escape(character), html.escape(character)
    coded = rf"%(?:25){{0,8}}{code:02x}|\\{{1,8}}u00{code:02x}|&#0{{0,8}}{code};|&#x0{{0,8}}{code:x};"
    ways = [plain if character.isalnum() else rf"\\{{0,8}}{plain}", f"(?i:{coded})"]
    if named != character:
        ways.append(re.escape(named))
    return f"(?:{'|'.join(ways)})"


def masked(text: str) -> str:
    """Return ``text`` with the secrets in it as ``***``."""
    for pattern in _secrets.values():
        text = pattern.sub("***", text)
    return text


def printable(text: str) -> str:
    """Return ``text`` with control and direction characters written out as in JSON; lines stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written_out(each) if _steers(each) else each for each in text)


def _steers(character: str) -> bool:
    return character not in f"\n{_JOINERS}" and unicodedata.category(character) in _STEERING


def _written_out(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def shorten(text: str, limit: int = PROMPT_SHOWN) -> str:
    """Return ``text`` on one line and in at most ``limit`` characters, with "…" where it was cut.

    A quotation that is cut is closed after it.
    """
    line = printable(masked(" ".join(text.split())[:_TEXT_READ]))
    if len(line) <= limit:
        return line
    kept = line[: limit - 1]
    while len(kept) + len(closing := _open_quotes(kept)) >= limit:
        kept = kept[:-1]
    return f"{kept}…{closing}"


def _open_quotes(text: str) -> str:
    """Return what closes the quotations that are open at the end of ``text``, the innermost first.

    A mark within a word is an apostrophe, and so is a single one after a word where none is open.
    """
    open_marks = ""
    for found in _MARK.finditer(text):
        mark, before, after = found[0], text[: found.start()][-1:], text[found.end() : found.end() + 1]
        if mark in open_marks and not (mark in "'`" and after.isalnum()):
            open_marks = open_marks[open_marks.index(mark) + 1 :]
        elif mark in _CLOSES and not (mark in "'`" and before.isalnum()):
            open_marks = _CLOSES[mark] + open_marks
    return open_marks


def some_of(ids: Collection[str]) -> str:
    """Name a few predictions, and count the others: the journal has them all."""
    shown = ", ".join(list(ids)[:IDS_SHOWN])
    return shown if len(ids) <= IDS_SHOWN else f"{shown} and {len(ids) - IDS_SHOWN} more"


def redact(message: object, *, prompt: str = "") -> str:
    """Return what the API said, fit for an error: short, without URLs, the prompt cut to 80 characters.

    :param message: The API's text; moderation messages may quote the whole prompt back.
    :param prompt: The prompt of the request, where it is known.
    """
    said = str(message or "")[:_API_TEXT_SEARCHED]
    text, sent = (" ".join(_URL.sub(_hidden, part).split()) for part in (said, prompt))
    return shorten(_cut_quotes(text[:_API_TEXT_READ], sent), _API_TEXT_SHOWN)


def _hidden(url: re.Match[str]) -> str:
    """Return what stands for a URL; marks after it are those of the sentence."""
    return "[url]" + url[0][len(url[0].rstrip(_AFTER_URL)) :]


def _cut_quotes(text: str, prompt: str) -> str:
    """Cut each part of ``text`` that is also in ``prompt``: the API may quote a prompt without its end."""
    longer = PROMPT_SHOWN + 1
    if min(len(text), len(prompt)) < longer:
        return text
    # A set, for searching a prompt of "abab…" takes the product of both lengths.
    known = {prompt[at : at + longer] for at in range(len(prompt) - PROMPT_SHOWN)}
    parts, kept, start = [], 0, 0
    while (end := start + longer) <= len(text):
        if text[start:end] not in known:
            start += 1
            continue
        while end < len(text) and text[end + 1 - longer : end + 1] in known:
            end += 1
        parts += [text[kept:start], shorten(text[start:end])]
        kept = start = end
    return "".join([*parts, text[kept:]])
