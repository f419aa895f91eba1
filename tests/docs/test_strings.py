"""Log lines, errors and the texts of CLI and UI: one style, held for every text of the package.

The texts are read from the source, so one that no test makes the code say is held, too. What is not a text
of its own (a part that a function puts after a name, such as "is blank") is held to the words as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.docs.messages import ERRORS, HOLE
from tests.docs.pages import PACKAGE

NOT_HELD = tuple(
    f"local/{name}.py"
    for name in (
        "api",
        "catalogue",
        "faulty_responses",
        "inputs",
        "openapi",
        "pictures",
        "responses",
        "schemas",
    )
)
"""Modules of the local service that speak as WaveSpeed does."""

WORDS = {
    r"look(s|ed|ing)?(?! up)|lookouts?": "poll, check, search",
    r"watch(es|ed|ing|ers?)?": "poll",
    r"crowds?|scouts?|pressed|put off": "latency, urgent, deferred",
    r"paces?": "rate limit",
    r"bench(es)?": "job context",
    r"scribes?|pumps?": "group commit, dispatcher",
    r"(?<!the )rests?|rested|resting": "defer, hand off",
    r"settle[sd]?|settling": "collect an output, resolve an intent",
    r"answer(s|ed|ing)?": "response, respond",
    r"workplaces?|outlooks?|strangers?|fates?": "runtime, triage, untracked, verdict",
    r"(?<!-)pictures?": "image",
    r"tells?|told": "log, report, show",
    r"asks|asked": "request",
    r"be had": "available",
    r"anew": "again",
    r"no more(?! than)": "nothing more",
    r"lies?|lying": "is, is stored",
    r"but for": "except",
    r"none is": "there is no",
    r"stands? (in|there|at)": "is in, occurs",
    r"left behind|leaves behind": "paid for and not stored",
    r"lost answers?": "lost response",
    r"asked for|asks for": "requested",
    r"else(?! is)|ever|whereby": "otherwise; leave it out",
    r"cannot be seen|nothing that can be seen": "invisible",
    r"and at most \0?[\w,]*\0? are (read|sent|taken)": "; the limit is",
    r"(?<!there )is no (?!longer|proof)": "is not a",
    r"(un)?packed|unpacks?|unpacking": "compressed, decompressed",
    r"is cut|was cut": "is truncated",
    r"made anew": "made again",
    r"goes on|go on|going on": "continues, has more",
    r"turn(ed|s) out": "was, is",
    r"where (above|below|they|it|there|that|the row|a|an|his|one)": "if",
    r"each (an?|its own) \w+|\w+ a row|a row an? \w+|an? \w+ an item": "one per",
    r"for gone|takes? it for|takes? its \w+ for": "treats as",
    r"of use|of no use": "has an effect, has no effect",
}
"""Words and phrases that are not written, as patterns, and what is written instead.

They are private to whoever wrote them first, or a reader whose language is English reads them twice:
"where" for "if", "a row an item" for "one per row".
"""

# fmt: off
PRIVATE = {
    "look", "looks", "lookout", "watch", "watcher", "crowd", "scout", "pressed", "pace", "bench",
    "scribe", "pump", "settle", "workplace", "outlook", "stranger", "fate", "picture", "pictures",
    "told", "tell", "ask", "asked", "answer", "answers", "had", "anew",
}
# fmt: on
"""Words that no public name has in it."""

PUBLIC = re.compile(r"(hooks|operators|triggers|decorators|links)/\w+\.py|manifest\.py|exceptions\.py")
ON_DISK = {"prompt_asked", "seed_asked"}
"""Fields of receipts: what is on users' disks keeps its names."""

INVERTED = re.compile(r"(Of|Nor|Never|Only then|So(?! far)) (?=[a-z\0])")
"""Beginnings of a sentence whose subject comes late, or never: the actor comes first."""

LONGEST = {"log": 180, "what": 130, "allowed": 150, "fix": 170, "text": 240}
"""Characters of a text, without what is filled in."""

WITHOUT_ADVICE = {
    "OutputRefusedError: The output's URL redirects more than": "WaveSpeed's server has to be corrected",
}
"""Permanent errors, by class and beginning, that say neither what is allowed nor what to do, and why."""

PAGES = ("local/database.py", "local/manual.py", "maintenance/render.py")
"""Modules whose texts are whole pages or have columns, with as many characters and spaces as these need."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text.

    :param kind: ``log``, ``what``, ``allowed``, ``fix``; ``text`` for any other.
    :param text: With a hole for each value that is filled in.
    """

    module: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.kind}: {self.text.replace(HOLE, '{}')}"


@cache
def modules() -> dict[str, ast.Module]:
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        name: ast.parse(path.read_text()) for name, path in paths.items() if not name.startswith(NOT_HELD)
    }


@cache
def texts() -> list[Text]:
    return [text for module, tree in modules().items() for text in _texts(module, tree)]


def _texts(module: str, tree: ast.Module) -> Iterator[Text]:
    kinds: dict[int, str] = {}
    left_out = set[int]()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                left_out.add(id(docstring))
            case ast.JoinedStr(values=parts):
                left_out |= {id(part) for part in parts}
            case ast.Call():
                kinds |= {id(part): kind for kind, value in _said(node) for part in ast.walk(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in left_out:
            text = _with_holes(node)
            if len(re.findall("[A-Za-z]{2,}", text)) > 1 and " " in text:
                yield Text(module, node.lineno, kinds.get(id(node), "text"), text)


def _said(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the expressions that a call of a logger or of an error says, each with its kind."""
    name = _name(call)
    if name in ("debug", "info", "warning", "error", "exception", "log_image") and call.args:
        yield "log", call.args[0]
    if name in ERRORS:
        yield from (("what", value) for value in call.args[:1])
        yield from ((word.arg, word.value) for word in call.keywords if word.arg in LONGEST)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _with_holes(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    return (
        re.sub(r"%(\(\w+\))?[-+ #0]*\d*(\.\d+)?[sdrfg]", HOLE, node.value)
        if isinstance(node.value, str)
        else ""
    )


def test_the_texts_of_every_kind_are_found() -> None:
    found = {kind: sum(text.kind == kind for text in texts()) for kind in LONGEST}

    assert all(number >= 20 for number in found.values()), found
    assert {"__main__.py", "get_provider_info.py", "links/bitdance.py"} <= {text.module for text in texts()}


@pytest.mark.parametrize("word", WORDS)
def test_a_private_word_is_not_written(word: str) -> None:
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)

    assert [str(text) for text in texts() if pattern.search(text.text)] == [], f"write: {WORDS[word]}"


def test_a_public_name_has_no_private_word_in_it() -> None:
    found = [
        f"{module}: {name}"
        for module, tree in modules().items()
        if PUBLIC.fullmatch(module)
        for name in sorted(_public_names(tree) - ON_DISK)
        if PRIVATE & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    ]

    assert found == []


def _public_names(tree: ast.AST) -> set[str]:
    """Return the names of functions, their arguments, classes and fields that do not begin with ``_``."""
    found = set[str]()
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                found |= {name} | _public_names(node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if (
                not name.startswith("_") or name == "__init__"
            ):
                found |= {name} | {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
    return {name for name in found if not name.startswith("_") or name == "__init__"}


def test_a_sentence_begins_with_its_subject() -> None:
    found = [text for text in texts() if any(map(INVERTED.match, re.split(r"(?<=[.;:]) ", text.text)))]

    assert [str(text) for text in found] == []


def test_a_text_is_short() -> None:
    assert [
        str(text) for text in texts() if len(text.text) > LONGEST[text.kind] and text.module not in PAGES
    ] == []


def test_a_text_has_single_spaces() -> None:
    found = [text for text in texts() if re.search(r"\S {2,}\S", text.text) and text.module not in PAGES]

    assert [str(text) for text in found] == []


def test_a_fix_is_a_sentence() -> None:
    fixes = [text for text in texts() if text.kind == "fix" and not text.text.startswith((HOLE, ". ", ", "))]

    assert [str(text) for text in fixes if not text.text[0].isupper()] == []


def test_a_permanent_error_says_what_is_allowed_or_what_to_do() -> None:
    found = []
    for module, tree in modules().items():
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)
        for call in calls:
            kind = ERRORS.get(_name(call))
            if kind is None or kind.retry_helps or {word.arg for word in call.keywords} & {"allowed", "fix"}:
                continue
            what = f"{_name(call)}: {_what(call.args[0])}"
            if not what.startswith(tuple(WITHOUT_ADVICE)):
                found.append(f"{module}:{call.lineno} {what}")

    assert found == []


def _what(node: ast.expr) -> str:
    return _with_holes(node) if isinstance(node, ast.Constant | ast.JoinedStr) else ast.unparse(node)
