"""What a check prints, with columns: a table of assumptions in plain words, with what to do."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_bitdance.check.assumptions import judge_all
from airflow_provider_bitdance.check.run import Report
from airflow_provider_bitdance.check.verdicts import Verdict


def shown_report(report: Report) -> str:
    """Show a check: one row for each assumption, and what to do where it does not hold."""
    return "\n".join([*_rows(report), "", _summary(report)])


def _rows(report: Report) -> Iterator[str]:
    for assumption, verdict, words in judge_all(report.seen):
        yield f"{verdict:<13}  {assumption.text}{f' ({words})' if words else ''}"
        if verdict is Verdict.FAILS:
            yield f"{'':13}  -> {assumption.advice.rstrip('.')}."


def _summary(report: Report) -> str:
    verdicts = [verdict for _, verdict, _ in judge_all(report.seen)]
    counts = {verdict: verdicts.count(verdict) for verdict in Verdict}
    balance = report.seen.account.balance
    may_buy = report.seen.spending is None and balance is not None and balance.is_good
    more = " --spend 0.04 buys three images to see more." if may_buy else ""
    return (
        f"{counts[Verdict.HOLDS]} assumptions hold, {counts[Verdict.FAILS]} do not; "
        f"{counts[Verdict.NOT_SEEN]} were not seen.{more}"
    )
