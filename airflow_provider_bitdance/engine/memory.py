"""Memory: lets glibc return the buffers of images to the system as soon as they are freed.

By itself it learns from the first of these buffers to keep such sizes, and keeps them for each thread: a
batch of 10,000 images, which had 32 of 1 MB at a time, came to 340 MB (`make bench ARGS=14`).
"""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3
"""https://man7.org/linux/man-pages/man3/mallopt.3.html: once it is set, it is no longer adjusted."""
BYTES = 128 * 2**10
"""Where glibc begins: buffers from this size on are mapped, and unmapped when they are freed."""


def return_large_buffers() -> None:
    """Set it for this process, which runs nothing but its task. Does nothing where libc is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BYTES)
