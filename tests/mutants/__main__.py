"""`python -m tests.mutants`: every mutation, or those whose module or reason holds one of the words.

It exits with 1 where the tests notice less than 95 % of them, or where one could not be run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

from tests.mutants.mutations import ROOT, Mutation, MutationError, all_mutations
from tests.mutants.runner import AT_ONCE, SECONDS_FOR_ALL, Run, Verdict, run_all, warm_up

REQUIRED = 0.95
ALL_TESTS = (
    "tests/unit/engine",
    "tests/unit/records",
    "tests/unit/maintenance",
    # Without those of the local service, which imports none of the modules that are changed.
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "contract").glob("test_*.py")),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only mutations that hold one of these")
    parser.add_argument("--once", action="store_true", help="do not try a survivor against all tests")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs at a time (default: {AT_ONCE})")
    given = parser.parse_args()
    mutations = [mutation for mutation in all_mutations() if _is_meant(mutation, given.words)]
    if not mutations:
        parser.error("no mutation holds one of these")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _play(mutations, at_once=given.at_once, once=given.once)
    except MutationError as error:
        print(f"{error}\nAdapt the list in tests/mutants/.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 130


def _is_meant(mutation: Mutation, words: list[str]) -> bool:
    return not words or any(word in f"{mutation} {mutation.change}" for word in words)


def _play(mutations: list[Mutation], *, at_once: int, once: bool) -> int:
    started = time.monotonic()
    warm_up()
    print(f"{len(mutations)} mutations, {at_once} at a time", flush=True)
    if not _pass_without_change(mutations[0], {name for mutation in mutations for name in mutation.tests}):
        return 1
    runs: dict[Mutation, Run] = {}
    for run in run_all(mutations, lambda mutation: mutation.tests, at_once=at_once):
        runs[run.mutation] = run
        _log(run, len(runs), len(mutations))
    survivors = [run.mutation for run in runs.values() if run.verdict is Verdict.SURVIVED]
    if survivors and not once:
        print(f"\n{len(survivors)} survived their own tests; now against all of them", flush=True)
        if not _pass_without_change(mutations[0], ALL_TESTS):
            return 1
        for run in run_all(survivors, lambda _: ALL_TESTS, at_once=at_once, seconds=SECONDS_FOR_ALL):
            runs[run.mutation] = replace(run, seconds=run.seconds + runs[run.mutation].seconds)
            print(f"{run.verdict}: {run.mutation}", flush=True)
    print(f"\n{table(list(runs.values()))}\n\n{time.monotonic() - started:.0f} s in all.", flush=True)
    return 0 if is_enough(list(runs.values())) else 1


def _pass_without_change(mutation: Mutation, tests: Iterable[str]) -> bool:
    """Run tests against the package as it is: one that fails anyway would notice everything."""
    none = replace(mutation, instead=mutation.text)
    (run,) = run_all([none], lambda _: tuple(sorted(tests)), seconds=SECONDS_FOR_ALL)
    if run.verdict is not Verdict.SURVIVED:
        print(f"The tests fail without any change:\n{run.said}", file=sys.stderr)
    return run.verdict is Verdict.SURVIVED


def _log(run: Run, number: int, total: int) -> None:
    print(f"{number:>3}/{total} {run.seconds:>5.1f} s  {run.verdict}: {run.mutation}", flush=True)
    if run.verdict is Verdict.BROKEN:
        print(run.said, flush=True)


def is_enough(runs: list[Run]) -> bool:
    """Say whether enough is noticed, and everything was run."""
    noticed = sum(run.verdict.is_noticed for run in runs)
    return noticed >= REQUIRED * len(runs) and not any(run.verdict is Verdict.BROKEN for run in runs)


def table(runs: list[Run]) -> str:
    """Return how many are noticed, by module, and what survived."""
    modules = dict.fromkeys(run.mutation.module for run in sorted(runs, key=lambda run: run.mutation.module))
    lines = [f"{'module':<32} noticed   of"]
    for module in modules:
        of_it = [run for run in runs if run.mutation.module == module]
        lines.append(f"{module:<32} {sum(run.verdict.is_noticed for run in of_it):>7} {len(of_it):>4}")
    noticed = sum(run.verdict.is_noticed for run in runs)
    lines.append(f"{'all':<32} {noticed:>7} {len(runs):>4}   {noticed / len(runs):.1%}")
    late = sum(run.verdict is Verdict.TIMED_OUT for run in runs)
    if late:
        lines.append(f"Noticed by a time-out: {late}")
    lines += [
        f"\n{run.verdict}: {run.mutation}\n    {run.mutation.change}"
        for run in runs
        if not run.verdict.is_noticed
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
