"""Tables of the docs that are made of the code: ``python -m tests.docs.tables`` writes them.

Options and what they mean are in the docstrings of the operators, flags in the parsers of the command line.
One page shows an example Dag.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_bitdance import __main__ as command_line
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.docs.pages import ROOT
from tests.document import between, write_between

COMMAND = "python -m tests.docs.tables"
OPTIONS, FLAGS = ROOT / "docs" / "reference" / "operators.md", ROOT / "docs" / "reference" / "cli.md"
PRODUCTION, EXAMPLE = (
    ROOT / "docs" / "how-to" / "production.md",
    ROOT / "example_dags" / "example_bitdance_production.py",
)
MORE_ABOUT = {
    "model": "models.md",
    "size": "models.md#sizes",
    "seed": "models.md#seeds",
    "inputs": "models.md#inputs",
    "enhance_prompt": "models.md#the-prompt-enhancer",
    "on_size_mismatch": "models.md#another-size-than-requested",
    "bitdance_conn_id": "connection.md",
    "url_base": "#urls-of-published-images",
    "records_path": "../operations/deploying.md#where-records-go",
    "on_lost_response": "../operations/costs.md#a-lost-response",
    "max_cost_usd": "../operations/costs.md#limits",
    "check_balance": "../operations/costs.md#limits",
    "retry_failed": "../operations/costs.md#failed-predictions",
    "poll_interval": "../internals/rate-limits.md#when-predictions-are-polled",
    "deferrable": "../internals/rate-limits.md#when-the-worker-is-given-back",
    "previews": "../how-to/images.md",
    "label": "../how-to/images.md#the-mark-of-ai-made-media",
    "items": "../how-to/batches.md#items",
    "max_unanswered": "../operations/costs.md#what-a-killed-worker-may-lose",
    "variants": "../how-to/batches.md#variants",
    "on_item_failure": "../how-to/batches.md#when-some-fail",
    "max_failures": "../how-to/batches.md#when-some-fail",
    "manifest_format": "../how-to/batches.md#the-manifest",
}
"""Where a page says more about an option; the links of its table."""


def made() -> dict[str, str]:
    """Return all tables by their names."""
    base = options_of(BitDanceBaseOperator)
    one, batch = options_of(BitDanceTextToImageOperator), options_of(BitDanceBatchOperator)
    shared = {"output_path": one.pop("output_path"), **base}
    return {
        "options of all": _options(shared, BitDanceTextToImageOperator),
        "options of one image": _options(one, BitDanceTextToImageOperator),
        "options of a batch": _options(
            {name: default for name, default in batch.items() if name not in shared}, BitDanceBatchOperator
        ),
        "flags": "\n\n".join(_commands(command_line._parser())),
        "example": _code(EXAMPLE.read_text()),
    }


def written() -> dict[str, str]:
    """Return what the pages have."""
    return {name: between(f"{COMMAND}, {name}", _page(name)) for name in made()}


def options_of(operator: type) -> dict[str, Any]:
    """Return the options that a class takes itself, with their defaults."""
    given = inspect.signature(inspect.unwrap(operator.__init__)).parameters.values()
    return {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}


def _page(name: str) -> Path:
    return {"flags": FLAGS, "example": PRODUCTION}.get(name, OPTIONS)


def _code(text: str) -> str:
    """Return an example Dag without its docstring, which is the page's text."""
    return f"```python\n{text.partition('import annotations')[2].strip()}\n```"


def _options(options: dict[str, Any], operator: type) -> str:
    said = {**_params(BitDanceBaseOperator), **_params(operator)}
    if operator is BitDanceTextToImageOperator:
        said = {**said, **_params(BitDanceBaseOperator)}
    rows = ["| option | default | t | meaning |", "| --- | --- | --- | --- |"]
    for name, default in options.items():
        shown = f"[`{name}`]({MORE_ABOUT[name]})" if name in MORE_ABOUT else f"`{name}`"
        meaning, mark, more = said[name].partition(" (templated)")
        assert bool(mark) == (name in operator.template_fields), f"{name}: templated or not?"
        assert not more, f"{name}: (templated) is not at the end"
        rows.append(f"| {shown} | {_default(name, default)} | {'yes' if mark else ''} | {meaning} |")
    return "\n".join(rows)


def _default(name: str, default: object) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if name == "deferrable":
        return "`[operators] default_deferrable`"
    of_a_batch = options_of(BitDanceBatchOperator).get(name, default)
    shown = f"`{default!r}`".replace("'", '"')
    return shown if of_a_batch == default else f"{shown}; in a batch `{of_a_batch!r}`"


def _params(operator: type) -> dict[str, str]:
    """Return what a docstring says of each parameter, as Markdown."""
    doc = inspect.cleandoc(operator.__doc__ or "")
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", doc, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()).replace("``", "`").replace("|", "\\|") for name, text in found}


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield f"## `{parser.prog.partition('bitdance ')[2]}`\n\n{parser.description}\n\n{_flags(parser)}"
    for action in inner:
        for command in action.choices.values():
            yield from _commands(command)


def _flags(parser: argparse.ArgumentParser) -> str:
    rows = ["| flag | meaning |", "| --- | --- |"]
    for action in parser._actions:
        if action.dest != "help":
            flags = ", ".join(action.option_strings) or action.dest
            value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
            shown = f"{flags} {value}".strip().replace("|", "\\|")
            rows.append(f"| `{shown}` | {action.help} |")
    return "\n".join(rows)


if __name__ == "__main__":
    for name, text in made().items():
        write_between(f"{COMMAND}, {name}", text, _page(name))
