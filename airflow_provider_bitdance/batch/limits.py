"""Limits: how much a batch may hold. They are checked before anything is unpacked or bought."""

from __future__ import annotations

from airflow_provider_bitdance.storage import LARGEST_FILE

MAX_ITEMS = 10_000
"""Images of a batch. One task plans, buys and records them, and its journal has entries for each."""

MAX_COLUMNS = 128
"""Columns of a row. All are in memory and in the journal with each row: 1.3 million values at most."""

MAX_ROW = 2**18
"""Characters of a row as JSON. Eight of the longest prompts; more is a file in the place of a value."""

MAX_INT_BITS = 1000
"""Bits of a whole number: 300 digits, as a float has at most. Python refuses to write 4,300 digits, and a
batch that is paid for would have no manifest."""

MAX_BATCH = LARGEST_FILE * 3 // 4
"""Bytes of all prompts, inputs and columns as JSON. The plan in the journal holds them, and no record above
``LARGEST_FILE`` is read again; the rest is 1,600 bytes an image for what else a plan has."""

MAX_LINES = 100 * MAX_ITEMS
"""Lines of a text file, blank ones and those within a quoted prompt included: reading 64 MiB of nothing but
line ends would take 10 s."""
