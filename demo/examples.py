"""The example Dags that the demo can run: which Dags make an example, and what is expected of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "example_dags"
BASIC, DAILY = "example_bitdance_basic", "example_bitdance_daily"
STARTED_BY_AN_ASSET = frozenset({f"{DAILY}_page"})
ASKS_A_PERSON = frozenset({"ApprovalOperator", "HITLOperator"})


@dataclass(frozen=True, slots=True)
class Example:
    """Dags that run one after the other.

    :param images: how many images they buy; a person who is asked may want none.
    :param timeout: seconds that one run may take.
    """

    dag_ids: tuple[str, ...]
    images: int = 3
    timeout: float = 600

    def copy_to(self, folder: Path) -> None:
        """Copy the files of these Dags: the other examples are not to run, or to cost, by themselves."""
        for file in FOLDER.glob("example_*.*"):
            if any(dag_id.startswith(file.stem) for dag_id in self.dag_ids):
                shutil.copy(file, folder)


EXAMPLES = {
    "basic": Example((BASIC,)),
    "daily": Example((DAILY, f"{DAILY}_page")),
    "batch": Example(("example_bitdance_batch",)),
    "chunks": Example(("example_bitdance_batch_chunks",)),
    "models": Example(("example_bitdance_models",), images=2),
    "approval": Example(("example_bitdance_approval",), images=4, timeout=3600),
    "maintenance": Example((BASIC, "example_bitdance_maintenance")),
}
