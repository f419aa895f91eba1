"""Thrift's compact protocol, as far as it takes to find the integers of Parquet's footers and page headers.

pyarrow trusts the headers of pages and not the footer: 16 kB whose footer says 100 bytes took a GiB. It does
not show these headers, and asking it for the columns of a damaged footer ends the process. So both are read
here.

Both readers have to find the same. pyarrow passes over a field of the wrong type, takes the last one of two,
cuts a number to its type's bits, and reads the elements of a list as the type that it expects, whatever the
list says they are. What it would read in another way than it is written is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _I16, I32, I64, _DOUBLE, BINARY, _LIST, _STRUCT = *range(10), 12
_BITS = {_I16: 16, I32: 32, I64: 64}
_LENGTHS = {_TRUE: 0, _FALSE: 0, _BYTE: 1, _DOUBLE: 8}
"""Bytes of a value. A boolean's type says which it is, and no list here has booleans."""
_DAMAGED = "its footer or a page's header is damaged"
_DEEPEST = 12
"""Structs and lists within each other. Parquet's footer has nine."""
_MOST_VALUES = 2**20
"""Values of one struct, about 2 s. A column of a row group has some 30."""


class Thrift:
    """Reads one struct after another.

    :param at: Where the next one begins.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.at = at
        self._data = data
        self._left = _MOST_VALUES

    def struct(self, fields: Mapping[int, Any], depth: int = 1) -> dict[int, Any]:
        """Return the fields of a struct by their numbers: integers, lists and structs; of others ``None``.

        :param fields: The types of those that are used, and of all that are lists: a plain one, a list of the
            elements' type, or such a table for a struct.
        :raises ValueError: There is something else.
        """
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer(_I16)
            if number in found or not 0 < number < 2**15:
                raise ValueError(_DAMAGED)
            found[number] = self._value(head & 15, fields.get(number), depth + 1)
        return found

    def _value(self, kind: int, expected: Any, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise ValueError("its footer or a page's header is too large")
        if expected is not None and kind != _kind_of(expected):
            raise ValueError(_DAMAGED)
        if kind in _BITS:
            return self._integer(kind)
        if kind == _STRUCT:
            return self.struct(expected if isinstance(expected, dict) else {}, depth)
        if isinstance(expected, list):
            head = self._byte()
            length = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, expected[0], depth + 1) for _ in range(length)]
        if kind != BINARY and kind not in _LENGTHS:
            raise ValueError(_DAMAGED)
        length = self._varint() if kind == BINARY else _LENGTHS[kind]
        self.at += length
        return None

    def _integer(self, kind: int) -> int:
        value = self._varint()
        if value >> _BITS[kind]:
            raise ValueError(_DAMAGED)
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError(_DAMAGED)

    def _byte(self) -> int:
        if not 0 <= self.at < len(self._data):
            raise ValueError("its footer or a page's header is truncated")
        self.at += 1
        return self._data[self.at - 1]


def _kind_of(expected: Any) -> int:
    if isinstance(expected, int):
        return expected
    return _LIST if isinstance(expected, list) else _STRUCT
