"""One function keeps out of errors, logs, journals and the terminal what they would obey."""

from __future__ import annotations

import json
import time

import pytest

from airflow_provider_bitdance import __main__ as command_line
from airflow_provider_bitdance.exceptions import BitDanceError, InputError
from airflow_provider_bitdance.redaction import hide, masked, printable, redact, shorten
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.response_errors import failure_of
from airflow_provider_bitdance.wavespeed.responses import Prediction

pytestmark = pytest.mark.usefixtures("no_garbage_collection")

HOSTILE = {
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "carriage return": "\rOK",
    "backspace": "\x08\x08",
    "8-bit control": "\x9b2J",
    "right to left": "\u202egnp.exe",
    "isolates": "\u2066\u2067\u2069",
    "invisible": "\u200b\u2060\ufeff\u00ad",
    "tags": "\U000e0041\U000e0042",
    "line separators": "\u2028\u2029\x85",
    "half a character": "\ud800",
    "null": "\0",
}
FINE = (
    "Ein Bär \u0646\u200c\u0648 \u0915\u094d\u200d\u0937 \U0001f469\u200d\U0001f680\ufe0f 灯塔\u3000 \ue000"
)


def is_clean(text: str) -> bool:
    text.encode()  # which half a character cannot be
    return not [each for each in text if printable(each) != each]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_what_is_obeyed_instead_of_shown_is_written_out(hostile: str) -> None:
    shown = printable(f"a{hostile}b")
    assert shown.startswith("a\\u")
    assert json.loads(f'"{shown}"') == f"a{hostile}b", "as JSON writes it"
    assert is_clean(shown)
    assert is_clean(shorten(hostile * 100))
    assert is_clean(redact(hostile * 100, prompt=hostile))


def test_letters_joiners_and_lines_stay() -> None:
    assert printable(f"{FINE}\nnext") == f"{FINE}\nnext"


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_no_error_has_it_whoever_said_it(hostile: str) -> None:
    said = f"said <{hostile}>"
    call = protocol.submit(ImageRequest.of(prompt="a lighthouse"))
    body = json.dumps({"code": 400, "message": said}).encode()
    with pytest.raises(BitDanceError) as refused:
        protocol.read(call, 400, {}, body)
    ended = Prediction(id="p-1", status=f"failed{hostile}", error=said)
    for error in (
        refused.value,
        failure_of(ended),
        InputError(said),
        BitDanceError("x").with_verdict(what=said),
    ):
        assert is_clean(str(error))
        assert is_clean(error.what)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "JSON"])
def test_the_command_line_writes_it_out(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "".join(HOSTILE[name] for name in ("terminal", "right to left", "tags"))
    found = command_line.Result(False, f"reason {hostile} {FINE}", {"reason": hostile})
    monkeypatch.setattr(command_line, "_show", lambda _: found)

    assert command_line.main(["records", "show", "--records-path", "/records", *options]) == 0
    shown = capsys.readouterr().out
    assert is_clean(shown)
    assert not options or json.loads(shown) == {"reason": hostile}


@pytest.mark.parametrize(
    "written",
    [
        r"abc\/def_ghi&12+x==",
        r"abc\\/def\u005fghi\u002612+x==",
        "abc&#47;def&#95;ghi&#38;12&#x2B;x==",
        "abc&#x2f;def&#0095;ghi&amp;12+x==",
        "abc%2Fdef_ghi%252612%2bx%3D%3d",
    ],
)
def test_a_secret_is_masked_as_json_urls_and_html_write_it(written: str) -> None:
    hide("abc/def_ghi&12+x==")
    assert masked(f"key={written}, or") == "key=***, or"


@pytest.mark.parametrize(
    "url",
    [
        *("//cdn.example/y?sig=2", r"\/\/cdn.example\/y?sig=2", "https://cdn.example/y?sig=2"),
        *(r"HTTPS:\/\/cdn.example\/y?sig=2", "https%3A%2F%2Fcdn.example%2Fy%3Fsig"),
    ],
)
def test_a_url_is_hidden_also_without_its_scheme(url: str) -> None:
    assert redact(f"No file at {url}, sorry") == "No file at [url], sorry"


@pytest.mark.parametrize("text", ["// a comment", "either//or", "s3://my.bucket/x", "1 //2"])
def test_two_slashes_alone_are_no_url(text: str) -> None:
    assert redact(text) == text


SLOW = {
    "backslashes": ("\\" * 100_000, ""),
    "backslashes of a URL": (("http:" + "\\" * 1_000) * 1_000, ""),
    "percent signs": ("%" + "25" * 50_000, ""),
    "entities": ("&#" + "0" * 100_000, ""),
    "host": ("//" + "a." * 50_000, ""),
    "most of a key": ("The key a-secret-of-some-lengt… is not valid", ""),
    "slashes": ("/" * 100_000, ""),
    "a prompt that repeats": (("ab" * 40 + "c") * 60, "ab" * 16_384),
    "a prompt that nearly repeats": (("a" * 80 + "c") * 61, ("a" * 81 + "b") * 399),
    "a prompt of one letter": ("a" * 5_000, ("a" * 80 + "b") * 404),
}


@pytest.mark.parametrize(("text", "prompt"), SLOW.values(), ids=SLOW)
def test_a_hostile_text_is_read_in_little_time(text: str, prompt: str) -> None:
    hide("a-secret-of-some-length")
    began = time.process_time()
    redact(text, prompt=prompt)
    assert time.process_time() - began < 0.2
