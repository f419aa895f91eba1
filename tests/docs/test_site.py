"""The site: its contents and docs/README.md have every page, and every public name has an entry."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from urllib.parse import urlsplit

import pytest
import yaml

from airflow_provider_bitdance import exceptions
from airflow_provider_bitdance.operators.base import BitDanceBaseOperator
from airflow_provider_bitdance.operators.bitdance import BitDanceBatchOperator, BitDanceTextToImageOperator
from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"
API = "".join(page.read_text() for page in sorted((DOCS / "reference" / "api").glob("*.md")))
IN_API = set(re.findall(r"^\.\. auto(?:class|function|module):: airflow_provider_bitdance\.(\S+)", API, re.M))
PUBLIC = ("operators.bitdance", "decorators.bitdance", "hooks.bitdance", "triggers.bitdance", "local")
"""Modules of which all that `__all__` names is public; of others it is listed here."""
ALSO_PUBLIC = {
    "manifest.read_manifest",
    "manifest.read_manifest_frame",
    "manifest.ManifestRow",
    "links.bitdance.ImagesLink",
    "links.bitdance.StoredLink",
    "links.bitdance.WaveSpeedLink",
    "maintenance.reconcile",
    "maintenance.prune.prune",
    "maintenance.prune.PruneReport",
    "engine.estimate.Estimate",
    "wavespeed.responses.Prediction",
    "exceptions",
    "local.pytest_plugin",
}


def public_names() -> Iterator[str]:
    for module in PUBLIC:
        for name in import_module(f"airflow_provider_bitdance.{module}").__all__:
            yield f"{module}.{name}"
    yield from ALSO_PUBLIC


@pytest.mark.parametrize("name", sorted(public_names()))
def test_every_public_name_has_an_entry(name: str) -> None:
    assert name in IN_API


def test_every_error_has_a_docstring_for_its_entry() -> None:
    errors = [each for each in vars(exceptions).values() if inspect.isclass(each)]
    ours = [each for each in errors if issubclass(each, exceptions.BitDanceError)]

    assert len(ours) > 20
    assert [each.__name__ for each in ours if not each.__doc__] == []


@pytest.mark.parametrize(
    "operator", [BitDanceBaseOperator, BitDanceTextToImageOperator, BitDanceBatchOperator]
)
def test_every_option_has_its_line_in_the_docstring(operator: type) -> None:
    options = inspect.signature(inspect.unwrap(operator.__init__)).parameters.values()
    named = {each.name for each in options if each.kind is each.KEYWORD_ONLY}
    described = set(re.findall(r":param (\w+):", inspect.getdoc(operator) or ""))

    assert named - described == set()


def in_contents() -> set[str]:
    """Return the paths of all pages in the site's table of contents."""
    contents = (DOCS / "_toc.yml").read_text()
    return {yaml.safe_load(contents)["root"], *re.findall(r"- file: (\S+)", contents)}


def test_every_page_is_in_the_site() -> None:
    pages = {page.relative_to(ROOT).with_suffix("").as_posix() for page in PAGES}

    assert pages - in_contents() == set()
    assert [page for page in in_contents() if not (ROOT / f"{page}.md").is_file()] == []


def test_every_page_is_linked_from_the_list_of_pages() -> None:
    listed = (DOCS / "README.md").read_text()
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES if page.is_relative_to(DOCS)}

    assert {page for page in pages if f"({page})" not in listed} - {
        "README.md",
        *(page for page in pages if page.startswith("reference/api/")),
    } == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_other_sites_are_https_addresses_with_a_host(page: object) -> None:
    links = re.findall(r"\]\((\w+:[^)\s]+)\)", page.read_text())  # type: ignore[attr-defined]

    assert [link for link in links if urlsplit(link).scheme != "https" or not urlsplit(link).hostname] == []
