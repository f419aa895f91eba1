"""Addresses: the one form in which a path or URI is compared, recorded and opened. Pure; nothing is opened.

Two spellings of one folder would be two destinations for one file: each task would miss the other's receipt
and overwrite its image. So what means the same gets one form, and what a store would read differently from
how it is written is refused. Links, and whether case or Unicode forms distinguish names, only the store knows
(docs/operations/storage.md).
"""

from __future__ import annotations

import re

from airflow_provider_bitdance.exceptions import InputError
from airflow_provider_bitdance.redaction import shorten
from airflow_provider_bitdance.text_checks import invisible_in

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LOCAL = ("file", "local")
_WITH_EMPTY_PARTS = ("s3", "s3a", "gs", "gcs")
"""Stores without folders, where ``a//b`` and ``a/b`` are two names. Others may take them for one."""
_AZURE = ("abfs", "abfss", "adl", "az")
_AZURES_OWN = ("$web", "$root", "$logs")
"""Containers that Azure makes itself; no other may have such a name."""
_AUTHORITY = re.compile(r"([^@?#\\\s]+@)?[A-Za-z0-9._:\[\]-]*")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_JOINERS = re.compile("[\u200c\u200d]")
"""They shape the letters of Persian, Indic and emoji names, and may stay."""
_TEMPLATE = re.compile(r"\{[{%#]")
_VERSION = re.compile(r"\?version_?id=", re.IGNORECASE)
_CONNECTION = re.compile(r"^(\w+://)[^/@]*@")
_SECRET = re.compile(r"(?<=:)(?!//)[^/@:]*@")
"""What follows a user name where somebody wrote one with a password before the ``@``."""


def address_of(given: object, *, field: str, allowed: str) -> str:
    """Return the address that a user gave, in its one form; white space around it is cut off.

    :param field: What the user calls it.
    :raises InputError: As :func:`normalize` says, or it has a character that nobody sees, or a store has an
        empty name for its folder.
    """
    try:
        address = normalize(str(given).strip())
        if code_point := invisible_in(_JOINERS.sub("", address)):
            raise ValueError(f"it has {code_point}, an invisible character")
        # Folders are opened without the slash at their end, so "a//x" would be "a/x", another image.
        if not address.startswith("file://") and address.partition("://")[2].rpartition("/")[0].endswith("/"):
            raise ValueError('its folder ends in "//"; use one slash')
        return address
    except ValueError as error:
        raise refusal(given, str(error), field=field, allowed=allowed) from None


def refusal(given: object, fault: str, *, field: str, allowed: str) -> InputError:
    """Return the error that refuses an address."""
    return InputError(f"{field} is {shorten(repr(shown(given)))}: {fault}", allowed=allowed)


def shown(address: object) -> str:
    """Return an address as an error may show it: long ones whole, a password masked."""
    return _SECRET.sub("***@", str(address).strip(), count=1)


def normalize(address: str) -> str:
    """Return an address in its one form: ``scheme://…``, with a slash at its end where it has one.

    :param address: An absolute path or a URI such as ``s3://conn_id@bucket/images/``.
    :raises ValueError: It is blank or relative, or a store may read it as another one.
    """
    is_path = address.startswith("/")
    scheme, separator, rest = ("file", "://", address) if is_path else address.partition("://")
    scheme = scheme.lower()
    is_local = scheme in _LOCAL
    authority, _, path = rest.partition("/")
    faults = {
        "not an absolute path": not (separator and _SCHEME.fullmatch(scheme)),
        'not an absolute path; a file URI has three slashes, as in "file:///data/images"': is_local
        and authority,
        "it has a control character": _CONTROL.search(rest),
        'it has a ".."': ".." in path.split("/"),
        'it has a "::", which chains file systems': "::" in rest,
    } | ({} if is_local else _faults_of_uri(scheme, authority, path))
    for fault, is_so in faults.items():
        if is_so:
            raise ValueError(fault)
    if is_local:
        *folders, name = ["" if part == "." else part for part in path.split("/")]
        return "file:///" + "/".join([*filter(None, folders), name])
    return f"{scheme}://{rest}"


def _faults_of_uri(scheme: str, authority: str, path: str) -> dict[str, object]:
    """Return what a store or its library may read differently from how it is written."""
    parts = path.rstrip("/").split("/")
    is_azure = scheme in _AZURE
    if is_azure and authority.rpartition("@")[2] in _AZURES_OWN:
        authority = authority.replace("$", "")
    return {
        "its bucket or host has a character that is not allowed there": not _AUTHORITY.fullmatch(authority),
        'a part of it is "."': "." in parts,
        'it has a "//"': "" in parts and path.strip("/") and scheme not in _WITH_EMPTY_PARTS,
        'it has a "?versionId=", which is not part of a name': _VERSION.search(path),
        "Azure treats its backslash as a slash": is_azure and "\\" in path,
        "Azure removes the dot at the end of a part": is_azure and any(part.endswith(".") for part in parts),
    }


def fixed_folder(template: object) -> str:
    """Return the folder in which an address lies whatever its template renders to.

    Empty where there is no template, or where what is fixed names no bucket and no folder below the root.
    """
    text = str(template).strip()
    if (start := _TEMPLATE.search(text)) is None:
        return ""
    try:
        folder = normalize(text[: start.start()].rpartition("/")[0] + "/")
    except ValueError:
        return ""
    return folder if folder.partition("://")[2].strip("/") else ""


def lies_below(folder: str, root: str) -> bool:
    """Say whether a folder is another one or lies below it, by the same connection."""
    try:
        return f"{normalize(f'{folder}/')}/".startswith(f"{normalize(root).rstrip('/')}/")
    except ValueError:
        return False


def is_same_address(one: str, other: str) -> bool:
    """Say whether two addresses are the same folder, by the same connection."""
    return lies_below(one, other) and lies_below(other, one)


def without_connection(uri: str) -> str:
    """Return a URI without its connection id, which is information and no part of where a file is."""
    return _CONNECTION.sub(r"\1", uri)
