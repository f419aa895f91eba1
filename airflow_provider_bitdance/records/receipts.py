"""Receipts: the final record of one stored image, found from the image's destination.

Written after the file, so a receipt means that the image is there. Receipts serve other runs: reuse, audit,
cost. A receipt of an image that is about to be replaced is withdrawn first.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from airflow_provider_bitdance.records.codec import Strict, damaged, read_record
from airflow_provider_bitdance.records.events import Enhancement
from airflow_provider_bitdance.records.fields import (
    Count,
    FileName,
    MediaType,
    Moment,
    Name,
    PredictionId,
    Uri,
    Usd,
)
from airflow_provider_bitdance.records.owner import Owner
from airflow_provider_bitdance.storage import Folder, uri_of
from airflow_provider_bitdance.storage.naming import Destination
from airflow_provider_bitdance.wavespeed.image_request import ImageRequest
from airflow_provider_bitdance.wavespeed.models import is_other_size


class Receipt(Strict):
    """One stored image.

    :param uri: Where the file is.
    :param file: The file's name in the output folder.
    :param request: What was bought, with the real seed.
    :param seed_asked: The seed as the user requested it, -1 for any; ``None`` for a model that takes none.
    :param prompt_asked: The prompt as the user requested it, where another one was sent.
    :param enhancement: How the prompt that was sent was made.
    :param fingerprint: Identity of what was requested; a run with the same request reuses the image.
    :param width: Real width of the file, pixels.
    :param height: Real height of the file, pixels.
    :param size_differs: The image does not have the size that was requested. Format 1 did not say so.
    :param sha256_received: Hash of the file as it was received, if anything was done to it since.
    :param inference_ms: The service's own figure, milliseconds.
    :param estimated_cost_usd: The price we assumed; the API reports no cost for a prediction.
    :param reservation: Number of the reservation under which it was made; 0 where the name needs none.
    :param possibly_paid: How many submissions for this image were lost without a response, beside the one
        that gave it; each may have been charged.
    """

    # A time that the API reports as infinite must not keep a stored image from its receipt.
    model_config = ConfigDict(allow_inf_nan=True)

    format: int = 2
    uri: Uri
    file: FileName
    prediction_id: PredictionId
    request: ImageRequest
    seed_asked: int | None
    prompt_asked: str | None = None
    enhancement: Enhancement | None = None
    fingerprint: Name
    width: Count
    height: Count
    size_differs: bool = False
    media_type: MediaType
    bytes: Count
    sha256: Name
    sha256_received: Name | None = None
    nsfw: bool
    inference_ms: float | None
    estimated_cost_usd: Usd
    possibly_paid: Count
    reservation: Count = 0
    submitted_at: Moment
    stored_at: Moment
    writer: Owner

    @property
    def folder(self) -> str:
        """The output folder that it says its file is in."""
        return self.uri.removesuffix(f"/{self.file}")

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as usual."""
        usual = {"prompt_asked": None, "enhancement": None, "size_differs": False, "sha256_received": None}
        return {name: value for name, value in whole(self).items() if (name, value) not in usual.items()}

    @property
    def is_other_size(self) -> bool:
        """Whether the image has another size than was requested, also where the record does not say so."""
        return is_other_size(self.request.size, self.width, self.height)

    def summary(
        self, *, receipt: str, reused: bool, possibly_paid: int, enhancement: Enhancement | None = None
    ) -> dict[str, Any]:
        """Return the operator's result for this image: plain JSON, without the prompt.

        :param receipt: Where this receipt is.
        :param reused: The image was there before, or another task bought it.
        :param possibly_paid: How many submissions of this task instance were lost without a response.
        :param enhancement: How this task instance had its prompt made, and what that cost.
        """
        image_usd = 0.0 if reused else self.estimated_cost_usd
        prompt_usd = enhancement.estimated_cost_usd if enhancement else 0.0
        return {
            "uri": self.uri,
            "receipt": receipt,
            "prediction_id": self.prediction_id,
            "model": self.request.model,
            "size": self.request.size,
            "width": self.width,
            "height": self.height,
            "size_differs": self.is_other_size,
            "media_type": self.media_type,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "seed": self.request.seed,
            "inference_ms": self.inference_ms,
            "estimated_cost_usd": round(image_usd + prompt_usd, 6),
            "reused": reused,
            "nsfw": self.nsfw,
            "possibly_paid": possibly_paid,
            "prompts_possibly_paid": enhancement.possibly_paid if enhancement else 0,
        }


class Receipts:
    """The receipts below one records path. Its methods block.

    :param folder: The records path.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def uri(self, destination: Destination) -> str:
        """Return the URI of the receipt of the image at ``destination``, whether or not there is one."""
        return uri_of(self._folder, self._name(destination))

    def known(self) -> set[str]:
        """Return the names of all records that there are: one listing instead of many reads."""
        return {
            name.removeprefix("receipts/").removesuffix(".json") for name in self._folder.names("receipts")
        }

    def find(self, destination: Destination) -> Receipt | None:
        """Return the receipt of the image at ``destination``.

        Where the image is follows from the destination, whatever the receipt says: its file may be deleted or
        replaced, and its URI, which goes to other tasks, names the connection of this one.

        :raises RecordUnreadableError: There is one, and it is damaged, of another file, or newer than this
            package.
        """
        name = self._name(destination)
        receipt = read_record(Receipt, self._folder, name)
        if receipt is None:
            return None
        if not destination.may_be_stored_as(receipt.file):
            raise damaged(self._folder, name, "names a file that is not at its destination")
        return receipt.model_copy(update={"uri": f"{destination.folder}/{receipt.file}"})

    def listed(self, name: str) -> Receipt | None:
        """Return the receipt of this name in the records folder, without a destination that says where its
        image is.

        :raises RecordUnreadableError: It is damaged, newer than this package, or of an image whose receipt
            has another name.
        """
        receipt = read_record(Receipt, self._folder, name)
        if receipt is None:
            return None
        stem = receipt.file.rpartition(".")[0]
        destination = Destination(receipt.folder, stem)
        is_of_file = destination.may_be_stored_as(receipt.file)
        if not is_of_file or self._name(destination) != name:
            raise damaged(self._folder, name, "belongs to an image whose receipt has another name")
        return receipt

    def exists(self, destination: Destination) -> bool:
        """Say whether there is a receipt of the image at ``destination``."""
        return self._folder.size(self._name(destination)) is not None

    def write(self, destination: Destination, receipt: Receipt) -> None:
        """Record a stored image; call it after its file is written."""
        self._folder.replace(self._name(destination), _encoded(receipt))

    def create(self, destination: Destination, receipt: Receipt) -> None:
        """Record a stored image where there is no receipt yet; call it after its file is written.

        :raises FileExistsError: There is one; it is unchanged.
        """
        self._folder.create(self._name(destination), _encoded(receipt))

    def withdraw(self, destination: Destination) -> None:
        """Take a receipt away; call it before its image is replaced."""
        self._folder.remove(self._name(destination))

    def _name(self, destination: Destination) -> str:
        return f"receipts/{destination.record_name}.json"


def _encoded(receipt: Receipt) -> bytes:
    return receipt.model_dump_json(indent=1).encode()
