"""What the demo says of the service's bill."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_bitdance.wavespeed.client import Client, ClientSettings
from airflow_provider_bitdance.wavespeed.protocol import enhance
from demo.service import Bill, LocalService
from tests.unit.support import a_request


def test_enhanced_prompts_are_on_the_bill_and_are_no_images(tmp_path: Path) -> None:
    service = LocalService(tmp_path)
    service.start()
    try:
        with Client(ClientSettings(service.api_key, base_url=service.url)) as client:
            client.submit(a_request())
            client.send(enhance("A fox", "anime"))
        bill = service.bill()
    finally:
        service.stop()
    assert (bill.images, bill.prompts) == (1, 1)
    assert str(bill) == "1 image bought, 1 prompt enhanced, $0.011"


def test_a_bill_without_prompts_has_cents() -> None:
    assert str(Bill(images=3, dollars=0.03, in_flight=0)) == "3 images bought, $0.03"
