"""Items: what a batch is given, checked all at once before any money is spent. Pure; knows no Airflow.

Rows come from a list or from a file (:func:`read_items`); :func:`checked_items` makes items of them, or
refuses them all with one finding for each bad row.
"""

from airflow_provider_bitdance.batch.columns import Scalar
from airflow_provider_bitdance.batch.keys import CONTACT_SHEET
from airflow_provider_bitdance.batch.readers import read_items
from airflow_provider_bitdance.batch.validation import Item, checked_items

__all__ = ["CONTACT_SHEET", "Item", "Scalar", "checked_items", "read_items"]
