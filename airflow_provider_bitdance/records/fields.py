"""What the fields of records may hold: whoever may write the records folder must not lead a reader astray.

A number beyond these bounds, a time without a zone or a name that is a path is none that this package has
written. It is found when the record is read, and not where it would delete, write or spend.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core import PydanticCustomError

from airflow_provider_bitdance.storage.naming import EXTENSIONS, is_file_name
from airflow_provider_bitdance.wavespeed.responses import ID_PATTERN

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LATEST = datetime(2999, 1, 1, tzinfo=UTC)


def _file_name(text: str) -> str:
    if not is_file_name(text):
        raise ValueError("is not the name of a file")
    return text


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has a control character")
    return text


def _media_type(text: str) -> str:
    if text not in EXTENSIONS:
        raise PydanticCustomError("enum", "is not known to this version")
    return text


FileName = Annotated[str, AfterValidator(_file_name)]
"""One part of a path: it leads neither up nor down."""
PredictionId = Annotated[str, Field(pattern=ID_PATTERN)]
"""As the API gives it; it is a part of a URL and of log lines."""
Key = Annotated[str, AfterValidator(_one_line), Field(max_length=1024)]
"""The name of an image within its job, at most 240 bytes as a file's name; it is shown in log lines."""
Name = Annotated[str, Field(max_length=1024)]
"""An id of Airflow, of at most 250 characters of any kind; a host, a token or a hash."""
Uri = Annotated[str, Field(max_length=8192)]
"""A path of Linux has at most 4,096 bytes, which a URI may escape; a name in a bucket 1,024."""
Reason = Annotated[str, Field(max_length=65_536)]
"""What an error said: a few hundred characters, more where it names many images."""
MediaType = Annotated[str, AfterValidator(_media_type)]
Extension = Annotated[str, Field(pattern=r"^(\.([pP][nN][gG]|[jJ][pP][eE]?[gG]|[wW][eE][bB][pP]))?$")]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Integer = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Usd = Annotated[float, Field(ge=0, le=1e6)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=_LATEST)]
UnixTime = Annotated[float, Field(ge=0, lt=_LATEST.timestamp())]
