"""What Airflow reads of this package: the connection type and its form, the modules, the settings.

Imports nothing, for every Airflow process reads it.
"""

from __future__ import annotations

from typing import Any

INTEGRATION = "BitDance (WaveSpeedAI)"
_PACKAGE = "airflow_provider_bitdance"

MAX_IN_FLIGHT = 1_000
"""What is in flight goes to the trigger, whose arguments Airflow keeps in its database: 48 bytes each."""
MAX_REQUESTS_PER_MINUTE = 10_000

_EACH_TASK = (
    "The limit applies to each task. To limit all tasks together, use an "
    "Airflow pool that includes deferred tasks."
)

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "max_in_flight": {
        "label": "Maximum images in flight",
        "description": (
            "Default for a batch's max_in_flight. If empty, the batch adapts to "
            f"what the account accepts. {_EACH_TASK}"
        ),
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_IN_FLIGHT},
    },
    "requests_per_minute": {
        "label": "Maximum submissions per minute",
        "description": f"Default for a batch's requests_per_minute. Empty: no limit. {_EACH_TASK}",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_REQUESTS_PER_MINUTE},
    },
    "price_usd": {
        "label": "Price of one image (USD)",
        "description": "For estimated costs and max_cost_usd of BitDance-14B. Default: 0.01.",
        "schema": {"type": ["number", "null"], "minimum": 0, "maximum": 10000, "default": 0.01},
    },
    "model_prices": {
        "label": "Prices of other models (USD)",
        "description": (
            'Price of one image of each model, as JSON: {"vendor/model": 0.03}. If neither this field nor '
            "the provider lists a model, the API quotes its price."
        ),
        "schema": {"type": ["string", "null"]},
    },
    "live_price": {
        "label": "Live price",
        "description": "Request the current price from the API before buying, instead of using a fixed one.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    "timeout": {
        "label": "HTTP time-out (seconds)",
        "description": (
            "Limit for one request to the API. How long a task waits for its image "
            "is set by the operator's timeout. Default: 60."
        ),
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 600, "default": 60},
    },
    "records_path": {
        "label": "Records path",
        "description": (
            "Where the journal and the receipts are stored, such as "
            "s3://conn_id@bucket/records. Default: .bitdance in each output "
            "folder. Every worker must be able to access it."
        ),
        "schema": {"type": ["string", "null"]},
    },
    "allow_http": {
        "label": "Allow http",
        "description": "Allow sending the key over plain http to a host other than this machine.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}
"""The connection's extra fields, as the form shows them and the hook reads them."""

# The port is shown, though the host may contain it: without one, the test button of Airflow 3.3.1 and 3.3.2
# takes the connection for another one and responds "Bad Request" (apache/airflow#73298).
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "login"],
    "relabeling": {"host": "API address", "password": "API key"},
    "placeholders": {
        "host": "https://api.wavespeed.ai",
        "port": "443",
        "password": "from the WaveSpeed dashboard",
    },
}


SETTINGS: dict[str, Any] = {
    "bitdance": {
        "description": "Settings of airflow-provider-bitdance.",
        "options": {
            "records_path": {
                "description": (
                    "Where the journal and the receipts are stored if neither "
                    "the operator nor the connection sets a path. Empty: "
                    ".bitdance in each output folder."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "s3://conn_id@bucket/bitdance-records",
                "default": "",
            },
            "previews": {
                "description": (
                    "How many of its images a task shows in the Images tab, as thumbnails in Airflow's "
                    "database. 0 shows none."
                ),
                "version_added": "0.2.0",
                "type": "integer",
                "example": "0",
                "default": "24",
            },
            "label": {
                "description": (
                    "iptc: mark stored files as AI-generated in their IPTC metadata, unless a task sets its "
                    "own label. Empty: files stay as the model returned them."
                ),
                "version_added": "0.2.0",
                "type": "string",
                "example": "iptc",
                "default": "",
            },
        },
    }
}
"""The section of Airflow's settings."""


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description, in Airflow's ``provider_info`` form."""
    return {
        "package-name": "airflow-provider-bitdance",
        "name": INTEGRATION,
        "description": "BitDance-14B text-to-image on the WaveSpeedAI API: an image is bought once, stored "
        "and recorded.",
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://wavespeed.ai/docs/docs-api/wavespeed-ai/bitdance-14b-text-to-image",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks.base", "hooks.bitdance"),
        "operators": _modules("operators.batch", "operators.bitdance"),
        "triggers": _modules("triggers.bitdance"),
        "extra-links": [
            f"{_PACKAGE}.links.bitdance.{link}" for link in ("ImagesLink", "StoredLink", "WaveSpeedLink")
        ],
        "task-decorators": [
            {"name": "bitdance", "class-name": f"{_PACKAGE}.decorators.bitdance.bitdance_task"}
        ],
        "connection-types": [
            {
                "connection-type": "bitdance",
                "hook-class-name": f"{_PACKAGE}.hooks.bitdance.BitDanceHook",
                "hook-name": INTEGRATION,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "config": SETTINGS,
    }


def _modules(*names: str) -> list[dict[str, Any]]:
    modules = [f"{_PACKAGE}.{name}" for name in names]
    return [{"integration-name": INTEGRATION, "python-modules": modules}]
