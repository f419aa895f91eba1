"""How Sphinx builds the site from the Markdown and the docstrings of the repository: ``make docs``.

Nothing is fetched. The source folder is the repository, so a page links to any file as it does on GitHub.
``_toc.yml`` has the order of the pages.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import airflow_provider_bitdance

# Before autodoc does, which imports with TYPE_CHECKING set: pydantic cannot make FastAPI's models then.
import airflow_provider_bitdance.local.server

HERE = Path(__file__).parent
OBJECTS = HERE / "_site" / "airflow-objects.txt"
INVENTORY = HERE.parent / "build" / "airflow.inv"


def write_inventory() -> None:
    """Write the list of Airflow's objects as intersphinx reads it: a header, and compressed lines."""
    lines = [line for line in OBJECTS.read_text().splitlines(keepends=True) if not line.startswith("#")]
    header = "# Sphinx inventory version 2\n# Project: Airflow\n# Version: 3\n# zlib compresses the rest.\n"
    INVENTORY.parent.mkdir(exist_ok=True)
    INVENTORY.write_bytes(header.encode() + zlib.compress("".join(lines).encode()))


write_inventory()

project = "airflow-provider-bitdance"
author = "The airflow-provider-bitdance founders"
version = release = airflow_provider_bitdance.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_external_toc",
]
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md"]
exclude_patterns = ["build", ".*"]
external_toc_path = "docs/_toc.yml"
templates_path = ["_site"]

nitpicky = True
# Names of others in signatures, and of our modules that are not public.
nitpick_ignore_regex = [
    ("py:.*", r"(?!airflow_provider_bitdance\.).*"),
    (
        "py:.*",
        r"airflow_provider_bitdance\.(batch|check|engine|hooks\.(base|account|image_job)|wavespeed)\..*",
    ),
]
intersphinx_mapping = {"airflow": ("https://airflow.apache.org/docs/", str(INVENTORY))}

# Anchors as GitHub makes them.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"airflow-provider-bitdance {version}"
html_static_path = ["_site"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "index.html"}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_prompt_text = "$ "
