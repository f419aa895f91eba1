"""Where records and images are stored: one folder of a local disk or of an object store.

Two kinds behind one interface, because they differ in the one thing that everything depends on: how a file is
created exclusively. Folders get a ready filesystem handle, resolve nothing, and know no Airflow. Every method
blocks; the engine calls them in threads.
"""

from airflow_provider_bitdance.storage.base import LARGEST_FILE, Folder, check_writable, uri_of
from airflow_provider_bitdance.storage.local import LocalFolder
from airflow_provider_bitdance.storage.object_store import ObjectFolder

__all__ = ["LARGEST_FILE", "Folder", "LocalFolder", "ObjectFolder", "check_writable", "uri_of"]
