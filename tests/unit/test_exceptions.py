"""The tree of exceptions is the one that its docstring draws, and every message answers both questions."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.exceptions import BitDanceError, Paid
from airflow_provider_bitdance.redaction import redact, shorten

CLASSES = {
    name: found
    for name, found in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(found, BitDanceError) and found.__module__ == exceptions.__name__
}
LINE = re.compile(r"^    (?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+Error)\b *(?P<says>.*)$")
PAID = {
    "not paid": Paid.NO,
    "possibly": Paid.POSSIBLY,
    "paid": Paid.YES,
    "refunded by WaveSpeed, so counted as not paid": Paid.NO,
}


def drawn() -> list[tuple[str, str | None, str]]:
    """Read the docstring's tree: name, parent, what the line says of it."""
    rows: list[tuple[str, str | None, str]] = []
    above: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth = len(match["indent"]) // 4
            del above[depth:]
            rows.append((match["name"], above[-1] if above else None, match["says"]))
            above.append(match["name"])
    return rows


def answered() -> list[tuple[str, str, str]]:
    """Return each class whose line answers the questions, with both answers."""
    rows = []
    for name, _, says in drawn():
        if match := re.match(r"(no retry|retry) +· (.*?)(?: {2,}|$)", says):
            rows.append((name, match[1], match[2]))
    return rows


def error_of(name: str) -> BitDanceError:
    kind = CLASSES[name]
    needs_status = "status" in inspect.signature(kind).parameters
    return kind("It went wrong", status=500) if needs_status else kind("It went wrong")  # type: ignore[call-arg]


def test_the_docstring_draws_every_class_once_and_no_other() -> None:
    assert sorted(name for name, _, _ in drawn()) == sorted(CLASSES)


@pytest.mark.parametrize(("name", "parent"), [(name, parent) for name, parent, _ in drawn() if parent])
def test_the_docstring_nests_as_the_classes_do(name: str, parent: str) -> None:
    assert CLASSES[name].__bases__[0] is CLASSES[parent]


def test_the_docstring_answers_for_every_class_that_is_raised() -> None:
    bases = {kind.__bases__[0].__name__ for kind in CLASSES.values()}
    raised_too = {
        *("GarbledResponseError", "ModerationError", "NotFoundError", "OutputError"),
        *("RecordUnreadableError", "StorageError"),
    }
    assert {name for name, _, _ in answered()} == set(CLASSES) - bases | raised_too


@pytest.mark.parametrize(("name", "retry", "paid"), answered())
def test_the_docstring_tells_the_classes_answers(name: str, retry: str, paid: str) -> None:
    assert CLASSES[name].retry_helps is (retry == "retry")
    assert CLASSES[name].default_paid is PAID[paid]


def test_an_input_error_is_also_a_value_error() -> None:
    assert issubclass(exceptions.InputError, ValueError)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_message_answers_both_questions(name: str) -> None:
    error = error_of(name)
    text = str(error)
    assert text.startswith("It went wrong. ")
    assert re.search(r"\bretry\b", text)
    assert ("does not help" in text) is (not error.retry_helps)
    assert text.endswith(
        {
            Paid.NO: "Nothing was charged for it.",
            Paid.POSSIBLY: "The image may have been charged.",
            Paid.YES: "The image is paid for.",
        }[error.paid]
    )


@pytest.mark.parametrize("paid", Paid)
def test_where_an_error_is_raised_may_know_better_whether_it_was_paid_for(paid: Paid) -> None:
    assert exceptions.LostResponseError("x", paid=paid).paid is paid


@pytest.mark.parametrize("name", ["what", "fix", "paid", "status", "retry_helps", "retry_in_words"])
def test_an_error_is_never_changed(name: str) -> None:
    error = exceptions.ServerError("x", status=502)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(error, name, None)


def test_another_verdict_is_a_copy_with_everything_else_as_it_was() -> None:
    try:
        raise exceptions.RateLimitError("x", retry_after=7.0, fix="Wait") from OSError("below")
    except exceptions.RateLimitError as caught:
        error = caught
    copy = error.with_verdict(paid=Paid.POSSIBLY, retry=False, what="y")
    assert type(copy) is exceptions.RateLimitError
    assert (copy.what, copy.paid, copy.retry_helps) == ("y", Paid.POSSIBLY, False)
    assert (copy.retry_after, copy.status, copy.fix) == (7.0, 429, "Wait")
    assert (copy.__cause__, copy.__traceback__) == (error.__cause__, error.__traceback__)
    assert (error.what, error.paid, error.retry_helps) == ("x", Paid.NO, True)


def test_a_verdict_about_a_retry_takes_its_words_along() -> None:
    late = exceptions.PredictionTimeoutError("x")
    assert "polls" not in str(late.with_verdict(retry=False))
    assert "A retry does not help." in str(late.with_verdict(retry=False))
    assert "Come back." in str(late.with_verdict(retry=False, retry_in_words="Come back."))
    assert "Come back." in str(late.with_verdict(retry_in_words="Come back."))


def test_a_message_goes_from_what_was_wrong_to_what_to_do() -> None:
    assert str(exceptions.InputError("size is 5", allowed="a preset", fix="Change it!")) == (
        "size is 5. Allowed: a preset. Change it! A retry does not help. Nothing was charged for it."
    )


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("short", "short"),
        ("two\n\nlines\t", "two lines"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("", ""),
    ],
)
def test_shorten_keeps_one_line_of_80_characters(text: str, short: str) -> None:
    assert shorten(text) == short


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ('he said "no no no no"', 'he said "no n…"'),
        ("items is 'abcdefghijklmnop'", "items is 'abc…'"),
        ("use `abcdefghijklmnop` now", "use `abcdefgh…`"),
        ("a “quote 'within a quote'”", "a “quote 'wi…'”"),
        ('"a" and "b" and no quote open', '"a" and "b" an…'),
        ("the fox's tail and so on", "the fox's tail…"),
        ("the foxes' tails and so on", "the foxes' tai…"),
        ("'the fox's tail is red'", "'the fox's ta…'"),
        ('one two three "four"', "one two three …"),
        ("«une citation assez longue»", "«une citation…»"),
    ],
)
def test_a_quotation_that_is_cut_is_closed(text: str, short: str) -> None:
    assert shorten(text, 15) == short


@given(st.text(alphabet="ab \"'`“”«»…"), st.integers(min_value=10, max_value=40))
def test_a_text_that_is_cut_is_never_too_long(text: str, limit: int) -> None:
    assert len(shorten(text, limit)) <= limit


def test_a_url_that_is_left_out_keeps_the_marks_around_it() -> None:
    assert redact('The image "https://a.b/c?x=1" (see https://a.b/d). Sorry') == (
        'The image "[url]" (see [url]). Sorry'
    )


PROMPT = "a lighthouse " + "in the fog " * 30


@pytest.mark.parametrize(
    "quoted",
    [
        PROMPT,
        PROMPT.replace(" ", "\n"),
        PROMPT[:150],
        PROMPT[40:190],
        f"{PROMPT[:90]} and {PROMPT[100:195]}",
        f"see https://evil.example/{'x' * 300} {PROMPT}",
    ],
    ids=["whole", "other white space", "its start", "its middle", "two parts", "after a URL"],
)
def test_what_the_api_says_shows_at_most_80_characters_of_the_prompt_in_a_row(quoted: str) -> None:
    shown = redact(f"Refused: {quoted}", prompt=PROMPT)
    plain = " ".join(PROMPT.split())
    assert shown.startswith("Refused: ")
    assert not [at for at in range(len(shown) - 80) if shown[at : at + 81] in plain]


@pytest.mark.parametrize("url", ["https://cdn.example/a?sig=1", "http://10.0.0.1/x", "HTTPS://CDN/x"])
def test_what_the_api_says_is_shown_without_urls(url: str) -> None:
    assert redact(f"see {url} now") == "see [url] now"


@pytest.mark.parametrize("said", [None, "", 0, [], {}])
def test_an_api_that_says_nothing_is_shown_as_nothing(said: object) -> None:
    assert redact(said) == ""


@given(st.text(), st.text())
def test_what_the_api_says_is_always_one_short_line(said: str, prompt: str) -> None:
    shown = redact(said, prompt=prompt)
    assert len(shown) <= 200
    assert len(shown.splitlines()) <= 1


def test_a_verdict_about_money_takes_its_words_along() -> None:
    paid = exceptions.ServerError("x", status=502).with_verdict(paid=Paid.YES, paid_in_words="All cost $1")
    assert str(paid).endswith(" All cost $1.")
    assert str(paid.with_verdict(retry=False)).endswith(" All cost $1.")
    assert str(paid.with_verdict(paid=Paid.YES)).endswith("The image is paid for.")
