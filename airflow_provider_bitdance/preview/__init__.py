"""Preview: a few small pictures of what a task stored, for people to see in Airflow's UI.

The worker makes it, for it has the pictures in hand, and pushes it as one bounded XCom. The api-server shows
it (``plugin/``), and reads nothing but its own database.
"""

from airflow_provider_bitdance.preview.content import PREVIEW_KEY, Preview, PreviewImage

__all__ = ["PREVIEW_KEY", "Preview", "PreviewImage"]
