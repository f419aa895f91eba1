"""What the Prompt Enhancer takes and gives: styles, and texts that may be sent."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import EnhancedPromptError, GarbledResponseError, InputError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.prompt_enhancer import (
    ENHANCER_STYLES,
    check_echo,
    check_enhanced,
    enhanced_in,
    style_of,
)
from airflow_provider_bitdance.wavespeed.responses import Prediction


@pytest.mark.parametrize("value", [None, "", " ", "None"])
def test_no_style_sends_the_prompt_as_it_is(value: object) -> None:
    assert style_of(value) is None


@pytest.mark.parametrize("style", ENHANCER_STYLES)
def test_a_style_may_come_from_a_template(style: str) -> None:
    assert style_of(f" {style}\n") == style


@pytest.mark.parametrize("value", ["sharper", "Anime", True, 1, ["anime"]])
def test_another_style_is_refused_with_what_is_allowed(value: object) -> None:
    with pytest.raises(InputError, match="enhance_prompt is") as caught:
        style_of(value)
    assert caught.value.allowed == f"None, or {', '.join(ENHANCER_STYLES)}"


@pytest.mark.parametrize(("outputs", "text"), [((), ""), ((" a fox \n", "b"), "a fox"), (("\ufeffa",), "a")])
def test_the_text_is_the_first_output(outputs: tuple[str, ...], text: str) -> None:
    assert enhanced_in(outputs) == text


@pytest.mark.parametrize("text", ["a fox", "a fox: 3 o'clock, http without a host", "Füchse 狐"])
def test_a_prompt_is_sent(text: str) -> None:
    assert check_enhanced(text, requested="a fox", longest=100) == text


@pytest.mark.parametrize("text", ["see https://a.b/c", "WWW.a.b", "data:image/png;base64,AA", "ftp://a"])
def test_a_url_is_sent_only_where_the_user_wrote_one(text: str) -> None:
    with pytest.raises(EnhancedPromptError, match="has a URL, but the prompt has none"):
        check_enhanced(text, requested="a fox", longest=100)
    assert check_enhanced(text, requested="a poster of https://x.org", longest=100) == text


@pytest.mark.parametrize("text", ["", "\u200b", "a\0b", "half \ud83d", "x" * 101])
def test_what_is_no_text_or_too_long_is_not_sent(text: str) -> None:
    with pytest.raises(EnhancedPromptError) as caught:
        check_enhanced(text, requested="a fox " * 50, longest=100)
    assert len(caught.value.what) < 250
    str(caught.value).encode()


def test_the_call_may_be_paid_for_and_hides_its_text() -> None:
    call = protocol.enhance("a private fox", "anime")
    assert (call.method, call.path) == ("POST", "/api/v3/wavespeed-ai/prompt-optimizer")
    assert call.paid.value == "possibly"
    assert "private" not in repr(call)


@pytest.mark.parametrize("text", ["x" * 32_768, "data:" * 6_553, "a." * 16_384, ":/" * 16_384])
def test_a_text_without_a_space_is_searched_in_no_time(text: str) -> None:
    """The search for a URL's scheme took the square of the length: 16 s on an event loop."""
    began = time.process_time()
    check_enhanced(text, requested="a fox", longest=32_768)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "echoed",
    [
        None,
        {},
        {"text": "a  Fox\nat dawn"},
        {"text": "a fox at dawn, highly detailed", "style": "anime"},
        {"text": "a fox…"},
        {"text": '"\u200bA fox, at dawn."'},
        {"text": None, "style": ""},
        {"text": ["a"], "mode": "image"},
        {"style": "another that nobody knows"},
    ],
)
def test_an_echo_may_be_trimmed_cut_extended_or_left_out(echoed: dict[str, Any] | None) -> None:
    prediction = Prediction.model_validate({"id": "p", "input": echoed})
    check_echo(prediction, requested="a fox at dawn", style="anime")


@pytest.mark.parametrize(
    "echoed",
    [{"text": "somebody's secret"}, {"prompt": "an image"}, {"text": "a fox at dawn", "style": "realistic"}],
)
def test_an_echo_of_another_text_or_style_is_another_prediction(echoed: dict[str, Any]) -> None:
    prediction = Prediction.model_validate({"id": "p", "inputs": echoed})
    with pytest.raises(GarbledResponseError, match="prediction p shows a different text or style") as caught:
        check_echo(prediction, requested="a fox at dawn", style="anime")
    assert caught.value.retry_helps
    assert "secret" not in str(caught.value)
