"""What the tests of requests and responses build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from airflow_provider_bitdance.exceptions import BitDanceError
from airflow_provider_bitdance.wavespeed import protocol
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.protocol import Call

REQUEST = ImageRequest.of(prompt="a lighthouse", size="512*768", seed=7)
SUBMIT = protocol.submit(REQUEST)
GET = protocol.get_prediction("p-1")


def body(code: object = 200, message: object = "said so", data: object = None) -> bytes:
    return json.dumps({"code": code, "message": message, "data": data}).encode()


def refused(
    call: Call[Any], status: int, content: bytes = b"", headers: Mapping[str, str] | None = None
) -> BitDanceError:
    with pytest.raises(BitDanceError) as caught:
        protocol.read(call, status, headers or {}, content)
    return caught.value
