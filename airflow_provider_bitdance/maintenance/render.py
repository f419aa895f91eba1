"""What the commands print, as text or JSON. Prompts at most to 80 characters; no output URLs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_bitdance.maintenance.prune import PruneReport
from airflow_provider_bitdance.maintenance.report import CollectStatus, Report, Verdict, plain
from airflow_provider_bitdance.maintenance.scan import Finding, JobRecord, Records
from airflow_provider_bitdance.records import ImageState, Job, PlannedImage, Status
from airflow_provider_bitdance.redaction import shorten

DONE = (CollectStatus.STORED, CollectStatus.FAILED, CollectStatus.POSSIBLY_PAID)
"""Outcomes after which nobody needs the output that WaveSpeed keeps for some days."""

_LONGEST = 1000
"""Characters of an address or a job's name: honest ones have fewer, and are shown whole."""


def name_of(job: Job) -> str:
    """Name a job as a person would search for it in Airflow."""
    index = "".join(f" [{part}]" for part in job.instance)
    return shorten(f"{job.dag_id}.{job.task_id}{index}, run {job.run_id}", _LONGEST)


def jobs_as_json(records: Records, jobs: list[JobRecord]) -> dict[str, Any]:
    """Return jobs as plain JSON: what was requested, bought, stored, possibly paid.

    :param jobs: Those of ``records`` to show.
    """
    shown = [
        {
            "job": record.job.model_dump(),
            "journal": record.uri,
            "tries": record.last_try,
            "last_entry_at": _moment(record.state.time),
            "images": [
                _image_as_json(image, records, record.state.output) for image in record.state.images.values()
            ],
        }
        for record in jobs
    ]
    return {"records": records.uri, "jobs": shown, "findings": plain(records.findings)}


def _image_as_json(image: ImageState, records: Records, output: str) -> dict[str, Any]:
    plan, request = image.plan, image.plan.request
    receipt = records.receipt_of(image)
    return {
        "key": plan.key,
        "status": image.status.value,
        "prompt": shorten(plan.asked.prompt),
        "prompt_sent": shorten(request.prompt),
        "model": request.model,
        "size": request.size,
        "seed": request.seed,
        "prediction_id": image.prediction_id or None,
        "bought_at": _moment(image.submitted_at) if image.prediction_id else None,
        "reused": image.reused,
        "destination": f"{output}/{plan.stem}",
        "uri": receipt.uri if receipt else None,
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
    lines = [f"{records.uri}: {_count(len(jobs), 'job')}"]
    for record in jobs:
        lines += ["", f"{name_of(record.job)}, generation {record.job.generation}, try {record.last_try}"]
        for image in record.state.images.values():
            lines += _image_lines(image, records, record.state.output)
    return "\n".join(lines + unreadable_lines(records.findings))


def _image_lines(image: ImageState, records: Records, output: str) -> Iterator[str]:
    plan, request = image.plan, image.plan.request
    named = f"{shorten(plan.key, _LONGEST)}: " if plan.key != "image" else ""
    prompt = shorten(plan.asked.prompt)
    yield f"  requested {named}{prompt} ({request.size}, seed {request.seed})"
    yield from _prompt_lines(plan)
    if image.prediction_id and image.status is not Status.INTENDED:
        by = f"by {name_of(image.bought_by)}" if image.bought_by else f"about ${plan.estimated_cost_usd:.4g}"
        yield f"  bought    {image.prediction_id} at {_moment(image.submitted_at)}, {by}"
    if image.status is Status.STORED:
        receipt = records.receipt_of(image)
        uri = receipt.uri if receipt else f"the receipt {image.receipt} is missing"
        yield f"  stored    {shorten(uri, _LONGEST)}{', reused' if image.reused else ''}"
    elif image.status is Status.FAILED:
        yield f"  failed    {shorten(image.reason, 300)}"
    else:
        yield f"  pending   {_OPEN[image.status]}; destination {shorten(f'{output}/{plan.stem}', _LONGEST)}"
    if image.possibly_paid:
        yield f"  also possibly paid: {image.possibly_paid}. {shorten(image.reason, 300)}"


def _prompt_lines(plan: PlannedImage) -> Iterator[str]:
    """Show how the prompt was made, where another one was requested."""
    if (made := plan.enhancement) is None:
        return
    cost = f"about ${made.estimated_cost_usd:.4g}"
    yield f"  enhanced  {shorten(plan.request.prompt)} ({made.style}), {cost}"
    if made.possibly_paid:
        possibly = f"{made.possibly_paid}, about ${made.possibly_paid_usd:.4g}"
        yield f"  also possibly paid for its prompt: {possibly}"


_OPEN = {
    Status.PLANNED: "planned; nothing was bought",
    Status.INTENDED: "possibly submitted; no response is recorded",
    Status.SUBMITTED: "paid for, not stored",
}


def findings_as_json(records: Records, findings: list[Finding]) -> dict[str, Any]:
    """Return what is wrong with records and stored files as plain JSON."""
    read = {"jobs": len(records.jobs), "receipts": len(records.receipts)}
    return {"records": records.uri, **read, "findings": plain(findings)}


def shown_findings(records: Records, findings: list[Finding]) -> str:
    """Show what is wrong with records and stored files."""
    read = f"{_count(len(records.jobs), 'job')} and {_count(len(records.receipts), 'receipt')} read"
    found = f"{records.uri}: {read}, {_count(len(findings), 'finding')}"
    return "\n".join([found, *_finding_lines(findings)])


def shown_report(report: Report) -> str:
    """Show a reconciliation."""
    lines = [
        f"{report.records}: {_count(report.jobs, 'job')}, {_count(report.receipts, 'receipt')}",
        f"since {report.since:%Y-%m-%d %H:%M} UTC{'; dry run: nothing was changed' * report.dry_run}",
    ]
    sections = {
        "Paid for or possibly paid, and not stored": _open_lines(report),
        "Possibly paid": _possibly_paid_lines(report),
        "Predictions of the account that no record has": _untracked_lines(report),
        "Cost by Dag and day (UTC)": _cost_lines(report),
    }
    for title, section in sections.items():
        lines += ["", f"{title}:", *([f"  {line}" for line in section] or ["  none"])]
    return "\n".join(lines + unreadable_lines(report.findings))


def _open_lines(report: Report) -> Iterator[str]:
    for image in report.open_images:
        prediction = f"prediction {image.prediction_id}" if image.prediction_id else "no prediction"
        days = "" if image.outcome in DONE else f", {image.days_left:.1f} days left"
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
    rows = [
        (
            shorten(cost.dag_id, 250),
            str(cost.day),
            cost.predictions,
            cost.estimated_usd,
            cost.real_usd,
            cost.unbilled,
        )
        for cost in report.costs
    ]
    made = sum(cost.predictions for cost in report.costs)
    rows.append(("in all", "", made, report.estimated_usd, report.real_usd, 0))
    width = max(len(dag_id) for dag_id, *_ in rows)
    yield f"{'Dag':<{width}}  day         predictions  estimated      real"
    for dag_id, day, made, estimated, real, unbilled in rows:
        usd = f"{f'${estimated:.4f}':>9}  {f'${real:.4f}':>8}"
        missing = f"   {unbilled} not yet on the bill" if unbilled else ""
        yield f"{dag_id:<{width}}  {day:<10}  {made:>11}  {usd}{missing}"
    others = _count(report.unattributed.predictions, "prediction")
    yield f"The account also paid ${report.unattributed.real_usd:.4f} for {others} outside the records."


def shown_pruned(report: PruneReport) -> str:
    """Show what was deleted, or would be, and what was kept."""
    done = "would be deleted (--delete does it)" if report.dry_run else "deleted"
    lines = [
        f"{report.records}: records that have not changed for {report.older_than_days:g} days",
        f"{_count(len(report.journals), 'journal')} {done}",
        *(f"  {name_of(job)}, generation {job.generation}" for job in report.journals),
        f"{_count(len(report.receipts), 'receipt')} {done}: the images are gone",
        *(f"  {shorten(uri, _LONGEST)}" for uri in report.receipts),
        f"{_count(sum(report.kept.values()), 'journal')} kept",
        *(f"  {number} {why}" for why, number in sorted(report.kept.items())),
    ]
    return "\n".join(lines + unreadable_lines(report.findings))


def unreadable_lines(findings: Sequence[Finding]) -> list[str]:
    """Return the lines that show what could not be read; none if all could."""
    return ["", "Unreadable:", *_finding_lines(findings)] if findings else []


def _finding_lines(findings: Sequence[Finding]) -> list[str]:
    # A name on a disk may have line ends.
    return [
        f"  {shorten(finding.uri, _LONGEST)}\n      {shorten(finding.what, _LONGEST)}" for finding in findings
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _moment(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="seconds")
