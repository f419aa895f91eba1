"""How a response is read so that no server keeps the event loop: in small steps, within bounds.

httpcore gives way once a read from the network, and a read of 64 KiB may hold thousands of informational
responses (1xx), headers or chunks. Imports neither httpx nor httpcore: what it uses of them is given to it.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

LARGEST_HEAD = 32 * 2**10
"""Bytes that come before a body: headers, also those of informational responses. Servers send 1 KiB."""
_HEAD_STEP = 2 * 2**10
"""Bytes of a head that are read at once: some 80 informational responses."""
_BODY_STEP = 256 * 2**10
"""Bytes of a body that are read at once: as many as asyncio receives. httpcore reads a quarter of that,
and each quarter is copied, passed through its layers and waited for on its own."""
_CHUNK_STEP = 64
"""Chunks after which the event loop has its turn."""
_FREE_CHUNKS, _BYTES_A_CHUNK = 16_384, 256
"""A body has so many chunks, and one more for so many bytes: some servers send each token in its own."""


class TooLargeHeadError(OSError):
    """More bytes came before the body than a response has."""


class TooManyChunksError(OSError):
    """A body came in more chunks than one of its size has."""


@dataclass(slots=True)
class Exchange:
    """A request and its response, as httpcore tells of them (the extension ``trace``).

    :param is_unsent: It has certainly not left. What httpcore does not tell counts as sent.
    """

    is_unsent: bool
    connection: Any = None
    in_head: bool = False
    head_bytes: int = 0

    async def note(self, event: str, info: Any) -> None:
        """Take one event."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._guard(info["return_value"])
        if event.endswith("connect_tcp.complete"):
            self.connection = info["return_value"]
        if event.endswith("send_request_headers.started"):
            self.in_head, self.head_bytes = True, 0
            # That which asks a proxy for a tunnel is not ours.
            if info["request"].method != b"CONNECT":
                self.is_unsent = False
        if event.endswith("receive_response_headers.complete"):
            self.in_head = False

    async def close(self) -> None:
        """Close the connection: httpcore leaves it open where a handshake is cut off."""
        if self.connection is not None:
            with suppress(Exception):
                await self.connection.aclose()

    @staticmethod
    def _guard(stream: Any) -> None:
        """Have a connection read heads in small steps, and know its socket; later requests use it, too."""
        read, info_of, socket = stream.read, stream.get_extra_info, stream.get_extra_info("socket")

        async def guarded(max_bytes: int, *rest: Any, **named: Any) -> bytes:
            exchange = current.get()
            if exchange is None or not exchange.in_head:
                return bytes(await read(max(max_bytes, _BODY_STEP), *rest, **named))
            if exchange.head_bytes >= LARGEST_HEAD:
                raise TooLargeHeadError
            data = bytes(await read(min(max_bytes, _HEAD_STEP), *rest, **named))
            exchange.head_bytes += len(data)
            return data

        def get_extra_info(info: str) -> Any:
            return _is_readable(socket) if info == "is_readable" else info_of(info)

        stream.read = guarded
        # httpcore asks each idle connection before and after each request, and anyio looks up what it knows
        # of both ends for it: with 32 connections that was a sixth of the event loop's time.
        if socket is not None and hasattr(select, "poll"):
            stream.get_extra_info = get_extra_info


def _is_readable(socket: Any) -> bool:
    """Return whether a read would not wait: the server has closed an idle connection where it would not."""
    if (number := socket.fileno()) < 0:
        return True
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


current: ContextVar[Exchange | None] = ContextVar("bitdance_exchange", default=None)


async def in_steps(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks of a body, and let others use the event loop in between.

    :raises TooManyChunksError: There are more than belong to a body of its size.
    """
    count = taken = 0
    async for chunk in chunks:
        count += 1
        taken += len(chunk)
        if count > _FREE_CHUNKS + taken // _BYTES_A_CHUNK:
            raise TooManyChunksError
        if count % _CHUNK_STEP == 0:
            await asyncio.sleep(0)
        yield chunk
