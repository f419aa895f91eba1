"""Apache Airflow provider for BitDance-14B text-to-image on the WaveSpeedAI API.

Import the hook, the operator and the trigger from their modules, as with every Airflow provider; this
file holds the version and nothing else, so that importing it costs nothing.
"""

__version__ = "0.2.0"
