"""An object that is sent in parts: all of it appears at once, or nothing does."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Self, final

import attrs
import trio
from typing_extensions import override

from ._config import MOST_PARTS

_ABORT_TIMEOUT: Final = 1.0
"""Seconds that deleting the parts of an upload which failed may take; what is left then is the service's to expire."""
_SENT_AT_ONCE: Final = 2**16
"""Bytes."""


@final
class Body(io.BytesIO):
    """What a request carries. By itself it would be sent line by line, as a text is: a write for every 256 bytes or so."""

    @override
    def __next__(self) -> bytes:
        if piece := self.read(_SENT_AT_ONCE):
            return piece
        raise StopIteration


@final
@attrs.define(eq=False, repr=False)
class Upload:
    """One upload in parts; its exit deletes them unless it was finished."""

    _client: Any
    _where: Mapping[str, str]
    """`Bucket` and `Key`."""
    _how: Mapping[str, object]
    """What the object is given besides its content."""
    _id: str = attrs.field(default="", init=False)
    _parts: list[dict[str, object]] = attrs.field(factory=list[dict[str, object]], init=False)
    _is_finished: bool = attrs.field(default=False, init=False)

    async def __aenter__(self) -> Self:
        """Begin."""
        answer = await self._client.create_multipart_upload(**self._where, **self._how)
        self._id = answer["UploadId"]
        return self

    async def send(self, part: bytes) -> None:
        """Send the next part.

        Raises:
            ValueError: if there are too many.

        Cancellation: Is a checkpoint.
        """
        number = len(self._parts) + 1
        if number > MOST_PARTS:
            raise ValueError(f"an object has {MOST_PARTS} parts at most: raise part_size")
        answer = await self._client.upload_part(**self._where, UploadId=self._id, PartNumber=number, Body=Body(part))
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})

    async def finish(self) -> str:
        """Have the object appear; returns its etag.

        Cancellation: Is a checkpoint.
        """
        answer = await self._client.complete_multipart_upload(
            **self._where, UploadId=self._id, MultipartUpload={"Parts": self._parts}
        )
        self._is_finished = True
        return str(answer["ETag"])

    async def __aexit__(  # noqa: ASYNC910  what it suppresses has waited
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Delete what was sent, if it was not finished."""
        if self._is_finished:
            return  # noqa: ASYNC910  it has waited for the service
        # What made it fail is the error that counts.
        with trio.move_on_after(_ABORT_TIMEOUT, shield=True), suppress(Exception):
            await self._client.abort_multipart_upload(**self._where, UploadId=self._id)


async def pieces(  # noqa: ASYNC911  as below
    data: bytes | AsyncIterable[bytes], size: int
) -> AsyncGenerator[bytes]:
    """Yield data in pieces of one size, the last of which may be shorter; at least one."""
    held = bytearray()
    async with aclosing(_chunks(data)) as chunks:
        async for chunk in chunks:
            held += chunk
            while len(held) > size:
                yield bytes(held[:size])  # noqa: ASYNC911  to send each is a checkpoint
                del held[:size]
    yield bytes(held)


async def _chunks(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes]:  # noqa: ASYNC911  as above
    if isinstance(data, bytes):
        await trio.lowlevel.checkpoint()
        for at in range(0, len(data), 2**20):
            yield data[at : at + 2**20]  # noqa: ASYNC911  as above
    else:
        async for chunk in data:
            yield chunk
