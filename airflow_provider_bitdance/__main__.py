"""The command line: ``check``, ``records show``, ``records verify``, ``records costs``,
``records prune``, ``reconcile``.

Nothing here buys, except ``check --spend``.

Exit codes: 0, all is well; 1, something needs attention; 2, the command could not run or print.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.redaction import printable

FINE, FINDINGS, NOT_RUN = 0, 1, 2

ABOUT = """\
Checks a key and an installation. Inspects the records of bought images: what each job bought, whether the
stored files are complete, and whether the account agrees. Only check --spend buys."""
EXIT_CODES = "exit codes: 0 all is well, 1 something needs attention, 2 the command could not run or print"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found, for people and for programs."""

    needs_attention: bool
    text: str
    as_json: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, print what it found, and return its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    # As the commands of Airflow do that read connections: without it Airflow reads only environment
    # variables.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # Airflow logs to the standard output as soon as it is imported, and that is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        try:
            result: Result = given.run(given)
        except (BitDanceError, AirflowNotFoundException) as error:
            sys.stderr.write(f"{parser.prog}: {printable(str(error))}\n")
            return NOT_RUN
    shown = json.dumps(result.as_json, indent=1, ensure_ascii=False) if given.json else result.text
    try:
        _print(printable(shown))
    except OSError as error:
        sys.stderr.write(f"{parser.prog}: the command ran, but its result is not printed: {error.strerror}\n")
        return NOT_RUN
    return FINDINGS if result.needs_attention else FINE


def _print(text: str) -> None:
    """Print a text; what the output's encoding does not have is escaped.

    :raises OSError: It was not all printed: the disk is full, or nobody reads any more.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(f"{text.encode(encoding, 'backslashreplace').decode(encoding)}\n")
        sys.stdout.flush()
    except OSError:
        # Python flushes again when it ends: what is left must have somewhere to go, or that fails, too.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise


def _show(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.hooks.object_storage import find_records
    from airflow_provider_bitdance.maintenance import render
    from airflow_provider_bitdance.maintenance.scan import read_records

    records = read_records(find_records(given.records_path, given.conn_id))
    wanted = {name: value for name in ("dag_id", "run_id", "task_id") if (value := getattr(given, name))}
    jobs = [record for record in records.jobs if wanted.items() <= record.job.model_dump().items()]
    shown, as_json = render.shown_jobs(records, jobs), render.jobs_as_json(records, jobs)
    return Result(bool(records.findings), shown, as_json)


def _verify(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.hooks.object_storage import find_records, open_folder
    from airflow_provider_bitdance.maintenance import render
    from airflow_provider_bitdance.maintenance.outputs import addresses_of
    from airflow_provider_bitdance.maintenance.scan import read_records
    from airflow_provider_bitdance.maintenance.verify import verify

    outputs = addresses_of(given.output)
    records = read_records(find_records(given.records_path, given.conn_id))
    findings = verify(records, open_folder, outputs=outputs)
    shown, as_json = render.shown_findings(records, findings), render.findings_as_json(records, findings)
    return Result(bool(findings), shown, as_json)


def _costs(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.hooks.object_storage import find_records
    from airflow_provider_bitdance.maintenance import cost_table, render
    from airflow_provider_bitdance.maintenance.report import plain
    from airflow_provider_bitdance.maintenance.scan import read_records

    by = cost_table.dimensions_of(given.by)
    records = read_records(find_records(given.records_path, given.conn_id))
    table = cost_table.cost_table(records, by, since=given.since)
    as_json = {**cost_table.table_as_json(table), "findings": plain(records.findings)}
    shown = cost_table.table_as_csv(table) if given.csv else cost_table.shown_table(table)
    unreadable = "\n".join(render.unreadable_lines(records.findings))
    if given.csv:
        sys.stderr.write(printable(f"{unreadable}\n" if unreadable else ""))
    elif unreadable:
        shown = f"{shown}\n{unreadable}"
    return Result(bool(records.findings), shown, as_json)


def _prune(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.maintenance import render
    from airflow_provider_bitdance.maintenance.prune import prune

    report = prune(
        conn_id=given.conn_id,
        records_path=given.records_path,
        outputs=given.output,
        older_than=timedelta(days=given.older_than),
        dry_run=not given.delete,
    )
    return Result(report.needs_attention, render.shown_pruned(report), report.as_json())


def _reconcile(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.maintenance import reconcile, render

    report = reconcile(
        conn_id=given.conn_id,
        records_path=given.records_path,
        outputs=given.output,
        since=given.since,
        dry_run=given.dry_run,
        include_running=given.all,
        nsfw=given.nsfw,
    )
    return Result(report.needs_attention, render.shown_report(report), report.as_json())


def _check(given: argparse.Namespace) -> Result:
    from airflow_provider_bitdance.check import check
    from airflow_provider_bitdance.check.render import shown_report

    try:
        report = check(
            conn_id=given.conn_id,
            records_path=given.records_path,
            output_path=given.output_path,
            spend=given.spend,
            json_file=given.json_file,
            say=lambda line: sys.stderr.write(f"{printable(line)}\n"),
        )
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. If anything was bought, reconcile collects it.\n")
        raise SystemExit(NOT_RUN) from None
    if given.json_file:
        try:
            Path(given.json_file).write_text(json.dumps(report.as_json(), indent=1) + "\n")
        except OSError as error:  # what was seen, perhaps for money, is shown all the same
            sys.stderr.write(f"The file {given.json_file} could not be written: {error.strerror}\n")
    return Result(report.needs_attention, shown_report(report), {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_bitdance", description=ABOUT, epilog=EXIT_CODES
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    records = commands.add_parser("records", help="inspect the records", epilog=EXIT_CODES)
    actions = records.add_subparsers(required=True, metavar="COMMAND")
    show = _command(actions, "show", _show, "show what each job requested, bought and stored")
    for name in ("dag", "run", "task"):
        show.add_argument(f"--{name}-id", default="", metavar="ID", help=f"only jobs of this {name}")
    verify = _command(actions, "verify", _verify, "read every stored image and compare it with its receipt")
    _add_output(verify, "images are read in and below it, and in the folder that contains .bitdance")
    _add_costs(actions)
    _add_prune(actions)
    _add_reconcile(commands)
    return parser


def _add_costs(actions: Any) -> None:
    costs = _command(actions, "costs", _costs, "add up the cost of stored images, by Dag, day and more")
    costs.add_argument(
        "--by",
        default="dag,day",
        metavar="NAMES",
        help=(
            "what to group by: dag, day, month, model, task, run, size, separated by commas (default: "
            "dag,day); in UTC"
        ),
    )
    _add_since(costs, "only purchases since an ISO date in UTC (default: all)")
    costs.add_argument("--csv", action="store_true", help="print the rows as CSV")


def _add_prune(actions: Any) -> None:
    prune = _command(actions, "prune", _prune, "find old records that are no longer needed, and delete them")
    _add_output(prune, "receipts of images below it are deleted if the images are gone")
    prune.add_argument(
        "--older-than",
        type=_days,
        default=30,
        metavar="DAYS",
        help="only what has not changed for so many days, 8 to 36500 (default: 30)",
    )
    prune.add_argument("--delete", action="store_true", help="delete (default: list what would be deleted)")


def _add_since(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument("--since", type=_moment, metavar="DATE", help=about)


def _add_reconcile(commands: Any) -> None:
    reconcile = _command(
        commands,
        "reconcile",
        _reconcile,
        "compare the records with the account, and store images that are paid for but not stored",
    )
    _add_output(reconcile, "images are stored only in and below it")
    reconcile.add_argument(
        "--dry-run", action="store_true", help="change nothing; report what would be collected"
    )
    reconcile.add_argument(
        "--all",
        action="store_true",
        help="also collect images of jobs that may still be running; stops their processes",
    )
    _add_since(reconcile, "start of the comparison, an ISO date in UTC (default: 7 days ago)")
    reconcile.add_argument(
        "--nsfw",
        choices=("fail", "allow"),
        default="fail",
        help="whether flagged images are recorded as failed (default) or stored",
    )


def _add_output(command: argparse.ArgumentParser, about: str) -> None:
    about = f"an output folder; {about}. May be repeated"
    command.add_argument("--output", action="append", default=[], metavar="PATH", help=about)


def _add_check(commands: Any) -> None:
    """Add the command that is the first to run with a new key."""
    about = "compare the API, the account and this machine with what the provider assumes"
    check = _command(commands, "check", _check, about, has_json=False)
    check.add_argument(
        "--spend",
        type=float,
        default=0.0,
        metavar="USD",
        help="buy three images if they cost at most this much; 0.04 is enough (default: buy nothing)",
    )
    check.add_argument(
        "--output-path",
        default="",
        metavar="PATH",
        help="folder for the images (default: the folder check in the records path)",
    )
    check.add_argument(
        "--json",
        dest="json_file",
        default="",
        metavar="FILE",
        help="write the observations to a file, without keys, prompts, ids, URLs or amounts",
    )


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], Result],
    about: str,
    *,
    has_json: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=EXIT_CODES
    )
    parser.set_defaults(run=run, json=False)
    parser.add_argument(
        "--records-path",
        default="",
        metavar="PATH",
        help="folder of the records (default: records_path of the connection, then of the settings)",
    )
    parser.add_argument(
        "--conn-id",
        default="bitdance_default",
        metavar="ID",
        help="connection of the account (default: bitdance_default)",
    )
    if has_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _days(text: str) -> int:
    if text.isdecimal() and text.isascii() and len(text) <= 5 and 8 <= int(text) <= 36500:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a whole number of days, 8 to 36500: WaveSpeed keeps images for 7 days, "
        "and records lead to them"
    )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO date such as 2026-11-22") from None


if __name__ == "__main__":
    sys.exit(main())
