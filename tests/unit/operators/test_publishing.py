"""``url_base``: the web addresses of what is stored, in results, manifests and events of assets."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Asset, TaskDeferred
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_bitdance.decorators.bitdance import bitdance_task
from airflow_provider_bitdance.engine import Finished
from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.local import LocalService
from airflow_provider_bitdance.manifest import ManifestRow, read_manifest, read_manifest_frame
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from airflow_provider_bitdance.operators.publishing import with_urls
from tests.builders import context

BASE = "https://cdn.example.com/images/"
READY = {"reason": "ready", "ended": 1, "pending": 0}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images"


def image(output: Path, **given: Any) -> BitDanceTextToImageOperator:
    options = {"task_id": "image", "prompt": "A fox", "output_path": f"{output}/", "size": "256*256"}
    return BitDanceTextToImageOperator(**{**options, "url_base": BASE, **given})


def batch(output: Path, **given: Any) -> BitDanceBatchOperator:
    options = {"task_id": "image", "items": [{"key": "a=1", "prompt": "A fox"}], "size": "256*256"}
    return BitDanceBatchOperator(**{**options, "output_path": f"{output}/", "url_base": BASE, **given})


def version(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def test_the_url_has_the_files_name_and_a_part_of_its_hash(local: LocalService, output: Path) -> None:
    result = image(output).execute(context())

    file = output / "dag.image.run.png"
    assert result["url"] == f"{BASE}dag.image.run.png?v={version(file)}"
    assert result["uri"] == f"file://{file}"
    assert list(result)[:3] == ["uri", "url", "receipt"]


@pytest.mark.parametrize("base", [BASE, BASE.rstrip("/"), f" {BASE}\n", f"{BASE}/"])
def test_a_slash_at_the_end_and_white_space_around_make_no_difference(
    local: LocalService, output: Path, base: str
) -> None:
    assert image(output, url_base=base).execute(context())["url"].startswith(f"{BASE}dag.")


def test_every_character_of_a_files_name_arrives_at_the_server(local: LocalService, output: Path) -> None:
    name = "Ein Fuß, 50%2F? #1 & \"2\" '3' a=b+c"

    result = image(output, output_path=f"{output}/{name}").execute(context())

    url = urlsplit(result["url"])
    assert unquote(url.path) == f"/images/{name}.png"
    assert (url.query, url.fragment) == (f"v={result['sha256'][:8]}", "")
    assert re.fullmatch(r"[A-Za-z0-9/.%_=~:?-]+", result["url"])


def test_the_hash_is_that_of_the_labelled_file(local: LocalService, output: Path) -> None:
    result = image(output, label="iptc").execute(context())

    (file,) = output.glob("*.png")
    assert b"trainedAlgorithmicMedia" in file.read_bytes()
    assert result["url"].endswith(f"?v={version(file)}")


def test_a_reused_image_has_a_url_and_a_replaced_one_has_another(local: LocalService, output: Path) -> None:
    path = f"{output}/fox"
    bought = image(output, output_path=path).execute(context())
    reused = image(output, output_path=path).execute(context(run_id="another"))
    replaced = image(output, output_path=path, prompt="A hare").execute(context(run_id="third"))

    assert (reused["reused"], reused["url"]) == (True, bought["url"])
    assert replaced["uri"] == bought["uri"]
    assert replaced["url"] != bought["url"]


def test_without_a_base_there_is_no_url(local: LocalService, output: Path) -> None:
    result = batch(output, url_base=None).execute(context())

    assert "url" not in image(output, url_base=None).execute(context(run_id="another"))
    assert b"url" not in Path(result["manifest"].removeprefix("file://")).read_bytes()
    assert read_manifest(result["manifest"])[0].url is None


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_manifest_has_the_url_of_each_stored_image_and_none_of_a_failed_one(
    local: LocalService, output: Path, kind: str
) -> None:
    local.add_fault(on="submit", kind="failed", code=1200, match="hare")
    items = [{"key": "hare", "prompt": "A hare", "id": 1}, {"key": "a=1", "prompt": "A fox", "id": 2}]

    result = batch(output, items=items, on_item_failure="tolerate", manifest_format=kind).execute(context())

    failed, stored = read_manifest(result["manifest"])
    assert stored.url == f"{BASE}a%3D1.png?v={version(output / 'a=1.png')}"
    assert (failed.status, failed.url) == ("failed", None)
    assert (failed.columns["id"], stored.columns) == (1, {"id": 2})
    frame = read_manifest_frame(result["manifest"])
    assert [value for value in frame["url"] if isinstance(value, str)] == [stored.url]


def test_an_image_that_is_stored_and_not_the_result_has_no_url() -> None:
    """Its size is another one, and the task is to fail then."""
    finished = Finished({}, [], {}, None, refused={"a": {"uri": "file:///a.png", "sha256": "0" * 64}})

    assert with_urls(finished, BASE) == finished


def test_an_assets_event_has_the_url(local: LocalService, output: Path) -> None:
    asset, events = Asset("covers"), OutletEventAccessors()

    result = image(output, outlets=[asset]).execute({**context(), "outlet_events": events})

    assert events[asset].extra == result
    assert result["url"].startswith(BASE)


@pytest.mark.parametrize("returned", ["A fox", ["A fox"]])
def test_a_function_s_images_have_urls(local: LocalService, output: Path, returned: Any) -> None:
    @bitdance_task(task_id="image", output_path=f"{output}/", size="256*256", url_base=BASE)
    def made() -> Any:
        return returned

    result = made().operator.execute(context())

    url = result["url"] if "url" in result else read_manifest(result["manifest"])[0].url
    (file,) = output.glob("*.png")
    assert url == f"{BASE}{file.name}?v={version(file)}"


# What is refused

REFUSED = [
    "cdn.example.com/images/",
    "/images/",
    "s3://bucket/images/",
    "ftp://cdn.example.com/",
    "https://",
    "https:///images/",
    "https://cdn.example.com/images?size=2",
    "https://cdn.example.com/images?",
    "https://cdn.example.com/images#top",
    "https://user@cdn.example.com/images/",
    "https://cdn.example.com/größe/",
    "https://bücher.example/",
    "https://cdn.example.com/my images/",
    "https://cdn.example.com/50%/",
    "https://cdn.example.com/\\images/",
    'https://cdn.example.com/"><script>/',
    "https://cdn.example.com/a\nb/",
    f"https://cdn.example.com/{'a' * 1024}/",
    "",
]


@pytest.mark.parametrize("base", REFUSED)
def test_what_is_no_base_is_refused_when_the_dag_is_parsed(output: Path, base: str) -> None:
    with pytest.raises(InputError, match=r"url_base is .* Allowed: an http or https URL") as refused:
        batch(output, url_base=base)

    assert refused.value.retry_helps is False


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:8080",
        "http://web_server/images",
        "https://[2001:db8::1]:8443/a%20b/~me/",
        "HTTPS://CDN.example.com/;v=1,2/",
    ],
)
def test_other_bases_are_taken(output: Path, base: str) -> None:
    assert image(output, url_base=base).url_base == base


@pytest.mark.parametrize("base", [True, 0, 7, b"https://cdn.example.com/", Path("https://cdn.example.com/")])
def test_a_base_that_is_no_text_is_refused_when_the_dag_is_parsed(output: Path, base: object) -> None:
    with pytest.raises(InputError, match=r"url_base is .*http"):
        image(output, url_base=base)


def test_no_password_or_signature_of_a_base_is_shown(output: Path) -> None:
    with pytest.raises(InputError) as refused:
        image(output, url_base="https://me:hunter2@cdn.example.com/images/?sig=s3cr3t")

    assert "url_base is 'https://***@cdn.example.com/images/?…'" in str(refused.value)


@pytest.mark.parametrize(
    "base", ["{{ var.value.cdn }}", "https://cdn.example.com/{product}/", "cdn", {"a": 1}]
)
@pytest.mark.parametrize("make", [image, batch])
def test_a_base_that_is_rendered_to_something_else_is_refused_before_anything_is_bought(
    local: LocalService, output: Path, make: Any, base: object
) -> None:
    task = make(output, url_base="{{ base }}")
    task.url_base = base

    with pytest.raises(AirflowFailException, match=r"url_base is .*Nothing was charged"):
        task.execute(context())

    assert local.requests() == []


def test_a_base_is_a_template(output: Path) -> None:
    task = image(output, url_base="https://cdn.example.com/{{ ds }}/")

    task.render_template_fields({"ds": "2026-11-22"})

    assert task.url_base == "https://cdn.example.com/2026-11-22/"


def test_a_template_that_gives_none_is_no_base(local: LocalService, output: Path) -> None:
    task = image(output, url_base="{{ base }}")
    task.url_base = None

    assert "url" not in task.execute(context())


def test_an_estimate_refuses_what_the_task_would_refuse(local: LocalService, output: Path) -> None:
    with pytest.raises(InputError, match="url_base is 'cdn'"):
        image(output, url_base="{{ 'cdn' }}").estimate(context())


def test_a_base_that_is_rendered_to_something_else_on_resume_keeps_no_paid_image_from_being_stored(
    local: LocalService, output: Path
) -> None:
    local.add_fault(on="submit", kind="latency", seconds=30)
    options: dict[str, Any] = {"deferrable": True, "defer_after": 0}
    with pytest.raises(TaskDeferred):
        image(output, **options).execute(context())
    task = image(output, url_base="{{ base }}")
    task.url_base = "cdn"

    with pytest.raises(AirflowFailException, match=r"url_base is 'cdn'.*about \$0\.01 was charged"):
        task.execute_complete(context(), READY)

    assert len(list(output.glob("*.png"))) == 1
    assert image(output).execute(context(max_tries=5))["url"].startswith(BASE)
    assert local.bill().billed == 1


# The manifest's column


def test_a_column_of_items_may_be_called_url_where_images_have_none(
    local: LocalService, output: Path
) -> None:
    items = [{"key": "a", "prompt": "A fox", "url": "https://shop.example/7?v=0badc0de"}]

    row = read_manifest(batch(output, items=items, url_base=None).execute(context())["manifest"])[0]

    assert (row.url, row.columns) == (None, {"url": "https://shop.example/7?v=0badc0de"})


@pytest.mark.parametrize("name", ["url", "URL"])
def test_and_is_refused_where_they_have(local: LocalService, output: Path, name: str) -> None:
    items = [{"key": "a", "prompt": "A fox", name: "https://shop.example/7"}]

    with pytest.raises(AirflowFailException, match="collides with the manifest's own column 'url'"):
        batch(output, items=items).execute(context())

    assert local.bill().submitted == 0


@pytest.mark.parametrize("url", ["https://shop.example/7", 7, True, None])
def test_a_manifest_of_0_1_0_with_such_a_column_is_read_as_it_was(url: Any) -> None:
    row = ManifestRow.model_validate({"key": "a", "status": "stored", "sha256": "0" * 64, "url": url})

    assert (row.url, row.columns) == (None, {"url": url})
    assert row.as_dict()["url"] == url
