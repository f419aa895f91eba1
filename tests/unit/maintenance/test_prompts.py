"""What maintenance makes of enhanced prompts: purchases in the costs, lost ones in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_bitdance.maintenance.render import jobs_as_json, shown_jobs, shown_report
from airflow_provider_bitdance.maintenance.report import CollectStatus, Verdict
from airflow_provider_bitdance.maintenance.verify import verify
from airflow_provider_bitdance.records.enhanced_prompts import PromptKey
from airflow_provider_bitdance.records.model_schemas import write_schema
from tests.unit.enhancer.support import ENHANCED, KEY, PROMPT, task
from tests.unit.maintenance.support import Office
from tests.unit.support import RECORDS, Crash, Fuse, a_job, a_wanted, run
from tests.wire import httpx


@pytest.fixture
def office() -> Office:
    return Office(latency=1.0)


def go(office: Office, *, crash_at: int = 0, **context: Any) -> None:
    try:
        run(task(office.context(step=Fuse(crash_at), **context)))
    except Crash:
        assert crash_at
    office.clock.now += 1


def test_a_prompt_is_a_purchase_of_the_dag_that_bought_it(office: Office) -> None:
    go(office)
    report = office.reconcile()
    ((cost,), unattributed) = report.costs, report.unattributed
    assert (cost.predictions, cost.estimated_usd, cost.unbilled) == (2, 0.011, 0)
    assert (unattributed.predictions, report.untracked, report.findings) == (0, (), ())


def test_a_prompt_that_no_image_was_made_of_is_in_the_costs_too(office: Office) -> None:
    go(office, crash_at=10)  # the text is there, and there is no plan
    assert office.records.jobs == ()
    assert [(cost.predictions, cost.estimated_usd) for cost in office.reconcile().costs] == [(1, 0.001)]


def test_an_image_of_an_enhanced_prompt_is_collected(office: Office) -> None:
    with pytest.raises(Crash):
        run(task(office.context(step=dies_polling_its_image(office))))
    office.wait(hours=2)

    (image,) = office.reconcile().open_images

    assert (image.outcome, set(office.images)) == (CollectStatus.STORED, {"cover.png"})
    assert office.api.billed == 2
    (receipt,) = office.records.receipts.values()
    assert (receipt.prompt_asked, receipt.request.prompt) == (PROMPT, ENHANCED)


def dies_polling_its_image(office: Office) -> Callable[[str], None]:
    def step(name: str) -> None:
        if name == "before poll" and office.api.billed == 2:  # the prompt, and the image
            raise Crash

    return step


def test_a_lost_image_of_an_enhanced_prompt_is_listed_and_settled(office: Office) -> None:
    office.api.on_post = [never_arrives]
    go(office, timeout=600)
    office.wait(minutes=2)
    office.task(job=a_job(task_id="later"), wanted=a_wanted("a hen", name="hen"))
    office.wait(minutes=5)

    (loss,) = office.reconcile().possibly_paid

    assert (loss.key, loss.verdict, loss.prompt) == ("image", Verdict.NOT_CREATED, ENHANCED)
    assert office.unconfirmed == 0


def never_arrives(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("lost")


def test_a_lost_response_is_listed_once_it_is_over(office: Office) -> None:
    go(office, crash_at=4)
    assert office.reconcile().possibly_paid == ()  # it may still be under way
    office.wait(minutes=4)
    report = office.reconcile()
    (lost,) = report.possibly_paid
    assert (lost.prompt, lost.key, lost.intent) == (PROMPT, "prompt (artistic)", 1)
    assert (lost.verdict, lost.estimated_cost_usd, lost.job) == (Verdict.UNKNOWN, 0.001, a_job())
    assert f"about $0.001: {PROMPT}" in shown_report(report)
    office.wait(days=8)
    assert office.reconcile().possibly_paid == ()


def test_what_another_api_lost_is_no_matter_of_this_account(office: Office) -> None:
    go(office, crash_at=4)
    office.wait(minutes=4)
    moved = PromptKey(PROMPT, KEY.style, "api.elsewhere")
    (path,) = [path for path in office.disk if path.endswith("1.intent.json")]
    intent = json.loads(office.disk.pop(path)) | {"host": moved.host}
    office.disk[f"{RECORDS}/{moved.folder}/1.intent.json"] = json.dumps(intent).encode()
    report = office.reconcile()
    assert (report.possibly_paid, report.findings) == ((), ())


def test_show_has_both_prompts_and_what_was_lost(office: Office) -> None:
    go(office, crash_at=4)
    go(office, try_number=2)
    text = shown_jobs(office.records, list(office.records.jobs))
    assert f"requested {PROMPT} (" in text
    assert f"enhanced  {ENHANCED} (artistic), about $0.001" in text
    assert "also possibly paid for its prompt: 1, about $0.001" in text
    (image,) = jobs_as_json(office.records, list(office.records.jobs))["jobs"][0]["images"]
    assert (image["prompt"], image["prompt_sent"]) == (PROMPT, ENHANCED)


def test_verify_and_scan_do_not_stumble_over_prompts_and_schemas(office: Office) -> None:
    go(office)
    office.folder.replace("prompts/readme.txt", b"mine")
    office.folder.replace(f"{KEY.folder}/2.intent.json.tmp", b"")
    write_schema(
        office.folder, host="api", model="a/b", kind="text-to-image", schema={}, now=office.clock.now
    )
    office.folder.replace("models/deadbeef.json", b"not a record of ours")
    assert (office.records.findings, verify(office.records, office.open_folder)) == ((), [])


def test_a_damaged_purchase_is_a_finding_and_stops_nothing(office: Office) -> None:
    go(office)
    path = office.damage("1.intent.json")
    report = office.reconcile()
    ((finding,), (cost,)) = report.findings, report.costs
    assert path.rpartition("/")[0].endswith(finding.uri.rpartition("/")[2])
    assert "is damaged" in finding.what
    assert cost.predictions == 1
