"""What the fields of records may hold: whoever may write the records folder must not lead a reader astray.

A number beyond these bounds, a time without a zone or a name that is a path is none that this package has
written. It is found when the record is read, and not where it would delete, write or spend.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core import PydanticCustomError

from airflow_provider_bitdance.storage.naming import EXTENSIONS, is_file_name

_LATEST = datetime(2999, 1, 1, tzinfo=UTC)


def _file_name(text: str) -> str:
    if not is_file_name(text):
        raise ValueError("is not the name of a file")
    return text


def _media_type(text: str) -> str:
    if text not in EXTENSIONS:
        raise PydanticCustomError("enum", "is not known to this version")
    return text


FileName = Annotated[str, AfterValidator(_file_name)]
"""One part of a path: it leads neither up nor down."""
MediaType = Annotated[str, AfterValidator(_media_type)]
Extension = Annotated[str, Field(pattern=r"^(\.([pP][nN][gG]|[jJ][pP][eE]?[gG]|[wW][eE][bB][pP]))?$")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Integer = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Usd = Annotated[float, Field(ge=0, le=1e6)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=_LATEST)]
UnixTime = Annotated[float, Field(ge=0, lt=_LATEST.timestamp())]
