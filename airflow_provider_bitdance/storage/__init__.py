"""Where records and images lie: one folder of a local disk or of an object store.

Two kinds behind one interface, because one thing differs that everything rests on: how a file is created
exclusively. Folders get a ready filesystem handle, resolve nothing, and know no Airflow. Every method
blocks; the engine calls them in threads.
"""

from airflow_provider_bitdance.storage.disk import LocalFolder
from airflow_provider_bitdance.storage.folder import Folder, at, check_writable
from airflow_provider_bitdance.storage.objects import ObjectFolder

__all__ = ["Folder", "LocalFolder", "ObjectFolder", "at", "check_writable"]
