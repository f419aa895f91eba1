"""What people read: jobs, findings and reports as text. Prompts at most to 80 characters; no output URLs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from airflow_provider_bitdance.maintenance.report import CollectStatus, Report, Verdict
from airflow_provider_bitdance.maintenance.scan import Finding, JobRecord, Records
from airflow_provider_bitdance.records import ImageState, Job, Status
from airflow_provider_bitdance.redaction import shorten

__all__ = ["job_as_json", "name_of", "shown_findings", "shown_jobs", "shown_report"]


def name_of(job: Job) -> str:
    """Name a job as a person would search for it in Airflow."""
    index = f" [{job.map_index}]" if job.map_index >= 0 else ""
    return f"{job.dag_id}.{job.task_id}{index}, run {job.run_id}"


def job_as_json(record: JobRecord, uris: dict[str, str]) -> dict[str, Any]:
    """Return one job as plain JSON: what was requested, bought, stored, possibly paid.

    :param uris: Where the images are, by their receipts.
    """
    return {
        "job": record.job.model_dump(),
        "journal": record.uri,
        "tries": record.last_try,
        "last_entry_at": _moment(record.state.time),
        "images": [_image_as_json(image, uris) for image in record.state.images.values()],
    }


def _image_as_json(image: ImageState, uris: dict[str, str]) -> dict[str, Any]:
    plan, request = image.plan, image.plan.request
    return {
        "key": plan.key,
        "status": image.status.value,
        "prompt": shorten(request.prompt),
        "model": request.model,
        "size": request.size,
        "seed": request.seed,
        "prediction_id": image.prediction_id or None,
        "bought_at": _moment(image.submitted_at) if image.prediction_id else None,
        "reused": image.reused,
        "uri": uris.get(image.receipt),
        "receipt": image.receipt or None,
        "failure": image.failure.value if image.failure and image.status is Status.FAILED else None,
        "reason": shorten(image.reason, 300) or None,
        "possibly_paid": image.possibly_paid,
        "estimated_cost_usd": plan.estimated_cost_usd,
    }


def shown_jobs(records: Records, jobs: list[JobRecord]) -> str:
    """Show jobs: what was requested, bought, stored, possibly paid.

    :param jobs: Those of ``records`` to show.
    """
    uris = {stored.uri: stored.receipt.uri for stored in records.receipts}
    lines = [f"{records.uri}: {_count(len(jobs), 'job')}"]
    for record in jobs:
        lines += ["", f"{name_of(record.job)}, generation {record.job.generation}, try {record.last_try}"]
        for image in record.state.images.values():
            lines += _image_lines(image, uris)
    return "\n".join([*lines, *_finding_lines(records.findings)])


def _image_lines(image: ImageState, uris: dict[str, str]) -> Iterator[str]:
    plan, request = image.plan, image.plan.request
    named = f"{plan.key}: " if plan.key != "image" else ""
    yield f"  requested {named}{shorten(request.prompt)} ({request.size}, seed {request.seed})"
    if image.prediction_id and image.status is not Status.INTENDED:
        by = f"by {name_of(image.bought_by)}" if image.bought_by else f"about ${plan.estimated_cost_usd:.4g}"
        yield f"  bought    {image.prediction_id} at {_moment(image.submitted_at)}, {by}"
    if image.status is Status.STORED:
        reused = ", reused" if image.reused else ""
        yield f"  stored    {uris.get(image.receipt, f'the receipt {image.receipt} is missing')}{reused}"
    elif image.status is Status.FAILED:
        yield f"  failed    {shorten(image.reason, 300)}"
    else:
        yield f"  open      {_OPEN[image.status]}"
    if image.possibly_paid:
        yield f"  also possibly paid: {image.possibly_paid}. {shorten(image.reason, 300)}"


_OPEN = {
    Status.PLANNED: "planned; nothing is bought",
    Status.INTENDED: "about to be bought: no response is recorded",
    Status.SUBMITTED: "paid for, not stored",
}


def shown_findings(records: Records, findings: list[Finding]) -> str:
    """Show what is wrong with records and stored files."""
    read = f"{_count(len(records.jobs), 'job')} and {_count(len(records.receipts), 'receipt')} read"
    lines = [f"{records.uri}: {read}, {_count(len(findings), 'finding')}"]
    return "\n".join(lines + [f"  {finding.uri}\n      {finding.what}" for finding in findings])


def shown_report(report: Report) -> str:
    """Show a reconciliation."""
    lines = [
        f"{report.records}: {_count(report.jobs, 'job')}, {_count(report.receipts, 'receipt')}",
        f"since {report.since:%Y-%m-%d %H:%M} UTC{'; a dry run: nothing was changed' * report.dry_run}",
        "",
        "Bought or about to be bought, and left behind:",
    ]
    lines += _indented(_open_lines(report))
    lines += ["", "Possibly paid:", *_indented(_possibly_paid_lines(report))]
    lines += ["", "Predictions of the account that are in no record:", *_indented(_untracked_lines(report))]
    lines += ["", "Cost by Dag and day (UTC):", *_cost_lines(report)]
    return "\n".join([*lines, *_finding_lines(report.findings)])


def _open_lines(report: Report) -> Iterator[str]:
    for image in report.open_images:
        prediction = f"prediction {image.prediction_id}" if image.prediction_id else "no prediction"
        kept = set(CollectStatus) - {
            CollectStatus.STORED,
            CollectStatus.FAILED,
            CollectStatus.NOT_CREATED,
            CollectStatus.POSSIBLY_PAID,
        }
        days = f", {image.days_left:.1f} days left" if image.outcome in kept else ""
        cost = f"about ${image.estimated_cost_usd:.4g}"
        yield f"{image.outcome:<13} {name_of(image.job)}: {prediction}, {cost}{days}: {image.prompt}"
        if image.detail:
            yield f"{'':13} {shorten(image.detail, 300)}"


def _possibly_paid_lines(report: Report) -> Iterator[str]:
    for loss in report.possibly_paid:
        cost = f"about ${loss.estimated_cost_usd:.4g}"
        found = f": prediction {loss.prediction_id}" if loss.verdict is Verdict.BOUGHT else ""
        yield f"{loss.verdict}{found}: {name_of(loss.job)}, {loss.at:%Y-%m-%d %H:%M}, {cost}: {loss.prompt}"
        yield f"    {shorten(loss.reason, 300)}"


def _untracked_lines(report: Report) -> Iterator[str]:
    for item in report.untracked:
        prompt = f": {item.prompt}" if item.prompt else ""
        age = f"{item.age_days:.1f} days" if item.age_days >= 1 else f"{item.age_days * 24:.0f} h"
        yield f"{item.prediction_id}, {item.status}, {age} old{prompt}"


def _cost_lines(report: Report) -> Iterator[str]:
    width = max([len("in all"), *(len(cost.dag_id) for cost in report.costs)])
    yield f"  {'Dag':<{width}}  day         predictions  estimated      real"
    for cost in report.costs:
        unbilled = f"   {cost.unbilled} not on the bill yet" if cost.unbilled else ""
        yield (
            _cost_line(width, cost.dag_id, str(cost.day), cost.predictions, cost.estimated_usd, cost.real_usd)
            + unbilled
        )
    made = sum(cost.predictions for cost in report.costs)
    yield _cost_line(width, "in all", "", made, report.estimated_usd, report.real_usd)
    others = _count(report.unattributed.predictions, "prediction")
    yield (f"  The account also paid ${report.unattributed.real_usd:.4f} for {others} outside the records.")


def _cost_line(width: int, dag_id: str, day: str, made: int, estimated: float, real: float) -> str:
    return f"  {dag_id:<{width}}  {day:<10}  {made:>11}  {f'${estimated:.4f}':>9}  {f'${real:.4f}':>8}"


def _finding_lines(findings: Iterable[Finding]) -> list[str]:
    lines = [line for finding in findings for line in (f"  {finding.uri}", f"      {finding.what}")]
    return ["", "Unreadable:", *lines] if lines else []


def _indented(lines: Iterator[str]) -> list[str]:
    return [f"  {line}" for line in lines] or ["  none"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _moment(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="seconds")
