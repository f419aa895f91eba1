"""The tab's pages in Airflow's own app: who may see them, and that nothing in an XCom is more than text."""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from airflow.api_fastapi.app import create_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from jinja2 import Environment
from sqlalchemy import event

from airflow_provider_bitdance.plugin import PREFIX, BitDancePlugin
from airflow_provider_bitdance.plugin.page import NO_SHEET
from airflow_provider_bitdance.preview.content import MAX_PREVIEW, Preview, PreviewImage
from airflow_provider_bitdance.preview.sheet import as_xcom, sheet_key, sheet_markdown
from tests.integration.plugin_rows import (
    DAG_ID,
    RUN_ID,
    TASK_ID,
    XCOM_TABLE,
    a_run,
    begin_next_try,
    write_xcom,
    write_xcom_text,
)

WEBP = b64encode(b"RIFF....WEBP").decode()
STORED = PreviewImage(
    key="p-17", status="stored", width=1024, height=768, seed=42, cost_usd=0.01, uri="s3://b/p-17.png",
    thumbnail=WEBP,
)  # fmt: skip


@pytest.fixture(scope="module")
def app(airflow_db: None) -> Iterator[Any]:
    """Return Airflow's app with the plugin's in it."""
    with pytest.MonkeyPatch.context() as patch:
        # PyJWT warns of short ones.
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of a test " * 4)
        yield create_app(apps="core")


@pytest.fixture
def as_role(app: Any) -> Any:
    def client(role: str | None) -> TestClient:
        user = SimpleAuthManagerUser(username="somebody", role=role)
        token = app.state.auth_manager.generate_jwt(user, expiration_time_in_seconds=600)
        return TestClient(app, headers={"Authorization": f"Bearer {token}"})

    return client


@pytest.fixture
def xcom(app: Any) -> Iterator[Any]:
    """Have a Dag run, and write its XComs."""
    with a_run():
        yield write_xcom


def of_task(task_id: str = TASK_ID, map_index: str = "{MAP_INDEX}", dag_id: str = DAG_ID) -> str:
    parts = (dag_id, RUN_ID, task_id, map_index)
    return f"{PREFIX}/images/{'/'.join(quote(part, safe='') for part in parts)}"


OF_RUN = f"{PREFIX}/images/{DAG_ID}/{quote(RUN_ID, safe='')}"
PAGES = [of_task(), OF_RUN]


def of_sheet(key: str = "jazz", map_index: int = -1) -> str:
    """Return the address that a question shows, resolved as Airflow's UI does."""
    line = sheet_markdown(TASK_ID, key, map_index=map_index)
    template = re.fullmatch(r"\[!\[Contact sheet\]\((.+)\)\]\(\1\)", line)
    assert template
    return "/" + Environment().from_string(template[1]).render(dag={"dag_id": DAG_ID}, run_id=RUN_ID)


SHEET = b"RIFF\x0c\0\0\0WEBPVP8 \0\0\0\0"
SHEET_XCOM = as_xcom(b64encode(SHEET).decode())
ALL = [*PAGES, of_sheet()]


@pytest.mark.parametrize("page", ALL)
def test_who_is_not_logged_in_sees_nothing(app: Any, page: str) -> None:
    assert TestClient(app).get(page).status_code == 401


@pytest.mark.parametrize("page", ALL)
def test_who_may_not_read_the_dags_xcoms_is_refused(as_role: Any, page: str, xcom: Any) -> None:
    xcom(Preview(total=1, images=(STORED,)).as_xcom())
    xcom(SHEET_XCOM, key=sheet_key("jazz"))
    refused = as_role(None).get(page)
    assert refused.status_code == 403
    assert "p-17" not in refused.text
    assert SHEET not in refused.content


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
def test_a_viewer_sees_what_a_task_stored(as_role: Any, page: str, role: str, xcom: Any) -> None:
    xcom(Preview(total=1, stored=1, cost_usd=0.01, images=(STORED,)).as_xcom())
    shown = as_role(role).get(page)
    assert shown.status_code == 200
    picture = f"image/webp;base64,{WEBP}"
    for part in ("p-17", "1024 &times; 768", "seed 42", "$0.01", "s3://b/p-17.png", picture):
        assert part in shown.text, part


@pytest.mark.parametrize("dag_id", ["~", "", "%20", "no_such_dag"])
def test_a_dag_that_cannot_be_checked_is_refused_or_empty(as_role: Any, dag_id: str, xcom: Any) -> None:
    xcom(Preview(total=1, images=(STORED,)).as_xcom())
    answer = as_role("admin").get(f"{PREFIX}/images/{dag_id}/{quote(RUN_ID, safe='')}")
    assert "p-17" not in answer.text
    assert answer.status_code == (404 if dag_id in ("~", "") else 200)
    xcom(SHEET_XCOM, key=sheet_key("jazz"))
    assert as_role("admin").get(of_sheet().replace(DAG_ID, dag_id)).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("page", ALL)
def test_nothing_can_be_changed(as_role: Any, method: str, page: str) -> None:
    assert as_role("admin").request(method, page).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/images", "/sheets", "/"])
def test_there_is_no_other_page(app: Any, as_role: Any, path: str) -> None:
    for client in (TestClient(app), as_role("admin")):
        assert client.get(f"{PREFIX}{path}").status_code == 404


@pytest.mark.parametrize("page", PAGES)
def test_the_page_may_load_nothing_and_run_nothing(as_role: Any, page: str, xcom: Any) -> None:
    xcom(Preview(total=1, images=(STORED,)).as_xcom())
    answer = as_role("viewer").get(page)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert not re.search(r"<script|<link|<iframe|<form|<a |\bon\w+=|javascript:|https?://", answer.text)


EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
HOSTILE: list[Any] = [
    EVIL,
    [EVIL],
    {"format": 1, "total": EVIL},
    {"format": 99, "total": 1},
    {"format": 1, "total": 1, "images": [{"key": "k", "status": EVIL}]},
    {"format": 1, "total": 1, "images": [{"key": "k", "status": "stored", "thumbnail": EVIL}]},
    {"format": 1, "total": 1, "images": [{"key": "k", "status": "stored", "thumbnail": "A" * 99_999}]},
    {"format": 1, "total": 1, "images": [{"key": "k" * 9_999, "status": "stored"}]},
    {"format": 1, "total": 1, "images": [{"key": "k", "status": "stored"}] * 300},
    {"__classname__": "airflow.sdk.ObjectStoragePath", "__data__": "s3://bucket/x", "__version__": 1},
    None,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:40])
def test_what_is_no_preview_is_said_to_be_elsewhere(as_role: Any, value: Any, xcom: Any) -> None:
    xcom(value)
    for page in PAGES:
        answer = as_role("viewer").get(page)
        assert answer.status_code == 200
        assert EVIL not in answer.text
        assert "not in Airflow" in answer.text or "larger than any" in answer.text


def test_markup_in_a_preview_is_text(as_role: Any, xcom: Any) -> None:
    fields = {"key": EVIL, "error": EVIL, "uri": EVIL, "prompt": EVIL, "variant_of": EVIL}
    image = PreviewImage(status="failed", **fields)
    xcom(Preview(total=1, failed=1, manifest=EVIL, images=(image,)).as_xcom(), task_id=EVIL[:200])
    answer = as_role("viewer").get(OF_RUN)
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text
    assert "<img" not in answer.text


def test_ten_megabytes_are_not_read(as_role: Any, xcom: Any) -> None:
    xcom({"format": 1, "total": 1, "images": ["A" * 10 * 2**20]})
    for page in PAGES:
        answer = as_role("viewer").get(page)
        assert "larger than any" in answer.text
        assert len(answer.content) < MAX_PREVIEW


def test_no_page_makes_a_request(as_role: Any, xcom: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = STORED.model_copy(update={"uri": "https://evil.example/x.png", "thumbnail": ""})
    xcom(Preview(total=1, manifest="s3://conn@evil/x", images=(image,)).as_xcom())
    viewer = as_role("viewer")

    def refused(*_: Any) -> None:
        raise AssertionError("a request leaves the api-server")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    for page in PAGES:
        assert "evil" in viewer.get(page).text
    assert viewer.get(of_sheet()).status_code == 404


def test_mapped_tasks_have_pages_of_their_own_and_a_run_has_all(as_role: Any, xcom: Any) -> None:
    for index in (0, 1):
        image = STORED.model_copy(update={"key": f"of-{index}"})
        xcom(Preview(total=1, stored=1, images=(image,)).as_xcom(), map_index=index)
    viewer = as_role("viewer")
    assert "of-0" in (one := viewer.get(of_task(map_index="0")).text)
    assert "of-1" not in one
    whole = viewer.get(OF_RUN).text
    assert whole.index("group.cover [0]") < whole.index("of-0") < whole.index("group.cover [1]")
    assert re.findall("<dt>(.+)</dt>", viewer.get(of_task()).text) == ["of-0", "of-1"]


def test_only_the_images_of_the_latest_try_are_shown(as_role: Any, xcom: Any) -> None:
    sheets = {"first": SHEET, "second": SHEET.replace(b"VP8 ", b"VP8L")}
    for name, sheet in sheets.items():
        if name == "second":
            begin_next_try()
        image = STORED.model_copy(update={"key": f"of-the-{name}-try"})
        xcom(Preview(total=1, stored=1, images=(image,)).as_xcom())
        xcom(as_xcom(b64encode(sheet).decode()), key=sheet_key("jazz"))
    viewer = as_role("viewer")
    for page in PAGES:
        assert re.findall("<dt>(.+)</dt>", viewer.get(page).text) == ["of-the-second-try"]
    assert viewer.get(of_sheet()).content == sheets["second"]


def test_what_has_failed_comes_first(as_role: Any, xcom: Any) -> None:
    variants = [
        PreviewImage(key=f"b-v{n}", status="failed" if n == 2 else "stored", variant_of="b") for n in (1, 2)
    ]
    shown = (STORED, *variants, PreviewImage(key="c", status="failed"))
    xcom(Preview(total=4, stored=2, failed=2, images=shown).as_xcom())
    keys = re.findall("<dt>(.+)</dt>", as_role("viewer").get(of_task()).text)
    assert keys == ["b-v1", "b-v2", "c", "p-17"]


def test_a_run_of_hundreds_of_tasks_shows_some_and_says_so(as_role: Any, xcom: Any) -> None:
    for index in range(30):
        xcom(Preview(total=1, stored=1, images=(STORED,)).as_xcom(), map_index=index)
    page = as_role("viewer").get(OF_RUN).text
    assert page.count("p-17</dt>") == 24
    assert "6 more tasks of this run have images" in page


@pytest.mark.parametrize("role", ["viewer", "user", "op", "admin"])
@pytest.mark.parametrize("map_index", [-1, 3])
def test_a_viewer_sees_the_contact_sheet_of_a_question(
    as_role: Any, role: str, map_index: int, xcom: Any
) -> None:
    xcom(SHEET_XCOM, key=sheet_key("jazz"), map_index=map_index)
    answer = as_role(role).get(of_sheet(map_index=map_index))
    assert (answer.status_code, answer.content) == (200, SHEET)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_each_row_of_each_task_instance_has_a_contact_sheet_of_its_own(as_role: Any, xcom: Any) -> None:
    kinds = {("jazz", -1): b"VP8 ", ("jazz", 3): b"VP8L", ("jazz-2", -1): b"VP8X"}
    sheets = {where: SHEET.replace(b"VP8 ", kind) for where, kind in kinds.items()}
    for (key, map_index), sheet in sheets.items():
        xcom(as_xcom(b64encode(sheet).decode()), key=sheet_key(key), map_index=map_index)
    viewer = as_role("viewer")
    assert {where: viewer.get(of_sheet(*where)).content for where in sheets} == sheets
    assert viewer.get(of_sheet("jazz-2", 3)).status_code == 404


EVIL_SHEETS: list[Any] = [
    EVIL,
    as_xcom(EVIL),
    as_xcom(b64encode(EVIL.encode()).decode()),
    as_xcom(b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>").decode()),
    as_xcom(b64encode(SHEET + EVIL.encode()).decode()),
    as_xcom("A" * 10 * 2**20),
    SHEET_XCOM | {"media_type": "text/html", "format": "html"},
    {"__classname__": "airflow.sdk.ObjectStoragePath", "__data__": "s3://bucket/x", "__version__": 1},
    None,
]


@pytest.mark.parametrize("value", EVIL_SHEETS, ids=lambda value: str(value)[:40])
def test_what_is_no_contact_sheet_is_never_sent(as_role: Any, value: Any, xcom: Any) -> None:
    xcom(value, key=sheet_key("jazz"))
    answer = as_role("viewer").get(of_sheet())
    assert (answer.status_code, answer.content) == (404, NO_SHEET)


def test_where_there_is_no_contact_sheet_a_picture_says_what_to_do(as_role: Any) -> None:
    answer = as_role("viewer").get(of_sheet("no-such-key"))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "previews = 0" in answer.text
    assert "Open the sheet's file" in answer.text


@pytest.mark.parametrize("map_index", ["9" * 20, "9" * 5_000, "-2", "1e3", "%00"])
def test_a_map_index_that_no_task_has_is_no_error_of_the_server(as_role: Any, map_index: str) -> None:
    viewer = as_role("viewer")
    assert "no images to show" in viewer.get(of_task(map_index=map_index)).text
    assert viewer.get(of_sheet().replace("/-1/", f"/{map_index}/")).status_code in (404, 422)


def test_the_tab_is_relative_so_a_path_before_airflow_is_kept() -> None:
    for view in BitDancePlugin.external_views:
        assert view["href"].startswith(f"{PREFIX[1:]}/images/{{DAG_ID}}/{{RUN_ID}}")


@pytest.mark.parametrize("index", ["9" * 10, "9" * 20, "9" * 5_000, "-5", "0x1", "٣", "1e3", "\0"])
def test_an_index_that_no_task_has_shows_nothing(as_role: Any, index: str) -> None:
    answer = as_role("viewer").get(of_task(map_index=index))
    assert (answer.status_code, "no images to show" in answer.text) == (200, True)


@pytest.mark.parametrize(("dag_id", "status"), [("a\0b", 404), (DAG_ID, 422)])
def test_a_nul_in_a_path_does_not_reach_the_database(as_role: Any, dag_id: str, status: int) -> None:
    assert as_role("viewer").get(of_task(task_id="t\0", dag_id=dag_id)).status_code == status


TWISTED = [
    *("/images/{}", "/images/{}/", "/images/~/{}", "/images/%7E/{}", "/images/../images/~/{}"),
    *("//images/{}/r", "/images/{}/r/t", "/images/{}/r/t/0/more"),
]


@pytest.mark.parametrize("path", TWISTED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_no_other_path_or_method_shows_anything(as_role: Any, path: str, method: str, xcom: Any) -> None:
    xcom(Preview(total=1, images=(STORED,)).as_xcom())
    answer = as_role("admin").request(method, PREFIX + path.format(DAG_ID))
    assert answer.status_code in (404, 405)
    assert "p-17" not in answer.text


@pytest.mark.parametrize("page", [f"{OF_RUN}?dag_id=another", f"{of_task()}?dag_id=~"])
def test_the_dag_of_the_path_is_the_one_that_is_checked(as_role: Any, page: str, xcom: Any) -> None:
    xcom(Preview(total=1, images=(STORED,)).as_xcom())
    assert as_role(None).get(page).status_code == 403


@pytest.mark.parametrize(
    "value", ["[" * 100_000 + "]" * 100_000, '{"a":' * 30_000 + "1" + "}" * 30_000, "9" * 5_000, "{no"]
)
def test_json_that_cannot_be_parsed_leaves_the_other_tasks_of_the_page(
    as_role: Any, value: str, xcom: Any
) -> None:
    write_xcom_text(value)
    xcom(Preview(total=1, stored=1, images=(STORED,)).as_xcom(), task_id="z")
    viewer = as_role("viewer")
    assert "not in Airflow" in viewer.get(of_task()).text
    assert "p-17" in viewer.get(OF_RUN).text


def test_what_turns_the_text_after_it_is_written_out(as_role: Any, xcom: Any) -> None:
    image = STORED.model_copy(
        update={"uri": "s3://b/\u202egpj.exe", "error": "\x1b[31m\0", "prompt": "क्\u200dष"}
    )
    xcom(Preview(total=1, images=(image,)).as_xcom())
    for page in PAGES:
        shown = as_role("viewer").get(page).text
        assert "s3://b/\\u202egpj.exe" in shown
        assert not set(shown) & {"\u202e", "\x1b", "\0"}
        assert "क्\u200dष" in shown


def test_of_thousands_of_previews_the_database_reads_only_those_that_are_shown(
    as_role: Any, xcom: Any
) -> None:
    for index in range(40):
        xcom({"format": 1, "total": 1}, map_index=index)
    with noted_statements() as statements:
        assert "16 more tasks of this run" in as_role("viewer").get(OF_RUN).text
    sized = [statement for statement, _ in statements if "length(" in statement]
    assert sized
    assert all("LIMIT" in statement for statement in sized)


@pytest.mark.parametrize("page", ALL)
def test_the_database_does_not_go_through_the_previews_of_other_runs(
    as_role: Any, xcom: Any, page: str
) -> None:
    xcom(Preview(total=1, stored=1, images=(STORED,)).as_xcom())
    with noted_statements() as statements:
        as_role("viewer").get(page)
    with create_session() as session:
        database = session.connection().connection.cursor()
        plans = [list(database.execute(f"EXPLAIN QUERY PLAN {it}", values)) for it, values in statements]
    steps = [step[-1] for plan in plans for step in plan if f" {XCOM_TABLE} " in step[-1]]
    assert steps
    assert not [step for step in steps if not re.search(r"\((dag_run_id|task_instance_id)=", step)]


@contextmanager
def noted_statements() -> Iterator[list[tuple[str, Any]]]:
    """Have the list of what the database is asked meanwhile."""
    noted: list[tuple[str, Any]] = []
    with create_session() as session:
        engine = session.get_bind()

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        noted.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine, "before_cursor_execute", note)
