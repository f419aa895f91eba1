"""How long the docs are, and which words they do not use.

What counts as a word of the docs: what a reader reads in the Markdown of docs/, tables among it; something
shown as code within a sentence is one word. Not counted: blocks of code, what a command writes between two
marks, the pages of docstrings, and the rows of messages in troubleshooting, of which a reader looks up one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"
MOST_PROSE, MOST_WORDS = 13_000, 19_000
"""Of sentences, headings and lists; and with the cells of tables that people write."""
CATALOGUE = DOCS / "operations" / "troubleshooting.md"
COUNTED = [
    page
    for page in PAGES
    if page.is_relative_to(DOCS) and not page.is_relative_to(DOCS / "reference" / "api")
]
GENERATED = re.compile(r"<!-- made by .*?begin -->.*?<!-- made by .*?end -->", re.DOTALL)
ROW, MESSAGE = re.compile(r"^\|.*\|$", re.MULTILINE), re.compile(r"^\| `.*\|$", re.MULTILINE)
WORD = re.compile(r"[^\W_][\w'.,:*/%-]*")

AVOIDED = {
    r"lookouts?|look(s|ed)? (at|for)": "poll, check, search",
    r"crowds?|scouts?": "latency",
    r"\bpace\b": "rate limit",
    r"workplaces?|outlooks?": "runtime, triage",
    r"pictures?(?!_)": "image",
    r"asked(?! to)|told": "requested, logged",
    r"settle[sd]?|settling": "resolve, collect",
    r"watch(es|ed|ing|ers?)?": "poll",
    r"scribes?|pumps?": "group commit, dispatcher",
    r"answer(s|ed|ing)?": "response, respond",
    r"strangers?|fates?": "untracked, verdict",
    r"handoffs?|handovers?|hands? over": "deferral, defer",
    r"be had": "available",
    r"anew": "again",
    r"no more(?! than| images)": "no longer",
    r"but for": "except for",
    r"none is": "there is no",
    r"a row an item|a task an image|images a row": "one row per item",
}
"""Words and phrases that the docs do not use, as patterns, and what they say instead."""


def texts_of(page: Path, leave_out: re.Pattern[str] | None = None) -> list[str]:
    """Return the text of a page, a paragraph, a heading, a list item or a cell at a time."""
    markdown = GENERATED.sub("", page.read_text())
    if leave_out:
        markdown = leave_out.sub("", markdown)
    tokens = MarkdownIt().enable("table").parse(markdown)
    return ["".join(map(_text, token.children or ())) for token in tokens if token.type == "inline"]


def _text(token: Token) -> str:
    if token.type == "code_inline":
        return "code"
    return " " if token.type in ("softbreak", "hardbreak") else token.content


def words_of(page: Path, leave_out: re.Pattern[str] | None) -> int:
    return len(WORD.findall(" ".join(texts_of(page, leave_out))))


def test_the_docs_are_short() -> None:
    prose = {page.relative_to(DOCS).as_posix(): words_of(page, ROW) for page in COUNTED}
    with_tables = {
        page.relative_to(DOCS).as_posix(): words_of(page, MESSAGE if page == CATALOGUE else None)
        for page in COUNTED
    }

    assert sum(prose.values()) <= MOST_PROSE, prose
    assert sum(with_tables.values()) <= MOST_WORDS, with_tables


@pytest.mark.parametrize("page", COUNTED, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_has_one_word_for_one_thing(page: Path) -> None:
    found = {
        f"{match[0]!r} in {text[:80]!r}: write {instead}"
        for pattern, instead in AVOIDED.items()
        for text in texts_of(page)
        for match in re.finditer(rf"\b({pattern})\b", text, re.IGNORECASE)
    }

    assert found == set()
