"""The memory that requests have while they are read and stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

MAX_BYTES = 128 << 20
"""Of all bodies of an API together that are not stored yet."""

SMALL_BYTES = 64 << 10
"""The beginning of a body counts as nothing: a few slow clients must not keep out those who send a
text. The number of connections bounds it."""


class TooManyUploads(RuntimeError):
    """The bodies that are being read have as many bytes as they may."""


class UploadStalled(RuntimeError):
    """A body stopped coming."""


class Uploads:
    """Counts the bytes of the bodies that are in memory.

    Args:
        max_bytes: how many there may be.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    @contextlib.contextmanager
    def begin(self) -> Iterator[Upload]:
        """A body, as long as it is in memory."""
        upload = Upload(self)
        try:
            yield upload
        finally:
            self._bytes -= upload.counted

    def take(self, size: int) -> None:
        """Count ``size`` bytes more.

        Raises:
            TooManyUploads: there would be too many.
        """
        if self._bytes + size > self._max_bytes:
            raise TooManyUploads(
                f"requests that are being received have {self._bytes} bytes, "
                f"and may have {self._max_bytes}"
            )
        self._bytes += size


class Upload:
    """A body that comes in pieces.

    Attributes:
        size: in bytes, so far.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._body = bytearray()  # not a list: a piece of one byte takes fifty
        self.size = 0

    def add(self, piece: bytes) -> None:
        """The next bytes.

        Raises:
            TooManyUploads: there is no room for them.
        """
        self._uploads.take(_counted(self.size + len(piece)) - self.counted)
        self.size += len(piece)
        self._body += piece

    @property
    def counted(self) -> int:
        """Of the bytes so far, all but the beginning."""
        return _counted(self.size)

    def whole(self) -> bytes:
        """All of it; may be called once."""
        body = bytes(self._body)
        self._body.clear()
        return body


def _counted(size: int) -> int:
    return max(0, size - SMALL_BYTES)
