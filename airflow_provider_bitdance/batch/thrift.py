"""Thrift's compact protocol, as far as it takes to find the integers of Parquet's footers and page headers.

pyarrow trusts the headers of pages and not the footer: 16 kB whose footer says 100 bytes took a GiB. It does
not show these headers, and asking it for the columns of a damaged footer ends the process. So both are read
here.
"""

from __future__ import annotations

from typing import Any

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
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

    def struct(self, depth: int = 1) -> dict[int, Any]:
        """Return the fields of a struct by their numbers: integers, lists and structs; of others ``None``.

        :raises ValueError: There is something else.
        """
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[number] = None if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise ValueError("its footer or a page's header is too large")
        if kind in _INTEGERS:
            return self._integer()
        if kind == _STRUCT:
            return self.struct(depth)
        if kind in (_LIST, _SET):
            head = self._byte()
            length = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(length)]
        if kind not in (_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY):
            raise ValueError("its footer or a page's header is damaged")
        length = self._varint() if kind == _BINARY else 8 if kind == _DOUBLE else 1
        self.at += length
        return None

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("its footer or a page's header is damaged")

    def _byte(self) -> int:
        if not 0 <= self.at < len(self._data):
            raise ValueError("its footer or a page's header is cut")
        self.at += 1
        return self._data[self.at - 1]
