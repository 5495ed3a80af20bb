"""What workers are given: objects to put, get, list and delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Literal, final

import attrs
import trio

from kernel import Usage
from kernel.errors import UnavailableError

from ._config import S3Config
from ._errors import ObjectTooLargeError, PoolExhaustedError, translated
from ._health import Health
from ._upload import Body, Upload, pieces

_PIECE = 2**16
"""Bytes of an object that are handed over at a time."""


@final
@attrs.frozen(kw_only=True)
class ObjectInfo:
    """What is known of an object without its content."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Changes with the content; without quotation marks."""
    modified: datetime
    content_type: str = ""
    """Empty in what `list` yields."""
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """What its owner has said of it; empty in what `list` yields."""


@final
@attrs.define(eq=False, repr=False)
class ObjectStore:
    """Objects of the buckets of one account.

    Every method takes `bucket`, in place of the one of the manifest, and raises `ObjectMissingError` for an object that
    is not there, `S3Error` for what the service refuses, `ValueError` for what it could never take, and `UnavailableError` if it cannot be reached within
    `attempts`. Requests follow the deadline of the caller's scope: a cancelled one is broken off, and whether it was
    done is unknown.
    """

    client: Any
    """aiobotocore's own, for whatever else the service can do."""
    _config: S3Config
    _health: Health
    _under_way: int = attrs.field(default=0, init=False)

    async def put(
        self,
        key: str,
        data: bytes | AsyncIterable[bytes],
        *,
        bucket: str = "",
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Store an object, in the place of one of that name; returns its etag.

        Args:
            key: Its name.
            data: Its content. What is longer than `part_size`, or made while it is sent, goes in parts.
            bucket: As above.
            content_type: Its media type.
            metadata: What to say of it: ASCII, 2 kB at most in all.

        Cancellation: Is a checkpoint. If cancelled, the object is as it was or as it should be, never half: parts that
            were sent are deleted, within a second.
        """
        told = {"Bucket": self._bucket(bucket), "Key": key}
        how = {"ContentType": content_type, "Metadata": dict(metadata or {})}
        with self._using(told["Bucket"], key):
            if isinstance(data, bytes) and len(data) <= self._config.part_size:
                answer = await self.client.put_object(**told, **how, Body=Body(data))
                return _bare(answer["ETag"])
            async with (
                Upload(self.client, told, how) as upload,
                aclosing(pieces(data, self._config.part_size)) as parts,
            ):
                async for part in parts:
                    await upload.send(part)
                return _bare(await upload.finish())

    async def get(self, key: str, *, bucket: str = "") -> bytes:
        """Return the content of an object.

        Raises:
            ObjectTooLargeError: if it has more than `max_object_bytes`; `stream` takes any.
            ObjectMissingError, S3Error, UnavailableError: as above.

        Cancellation: Is a checkpoint.
        """
        parts: list[bytes] = []
        size, limit = 0, self._config.max_object_bytes
        async with self.stream(key, bucket=bucket) as content:
            async for part in content:
                parts.append(part)
                size += len(part)
                if size > limit:
                    where = f"{self._bucket(bucket)}/{key}"
                    raise ObjectTooLargeError(
                        f"{where} has more than max_object_bytes = {limit}; stream it", code="TooLarge", where=where
                    )
        return b"".join(parts)

    @asynccontextmanager
    async def stream(self, key: str, *, bucket: str = "") -> AsyncGenerator[AsyncIterator[bytes]]:
        """Have the content of an object while inside, piece by piece; what is not read is thrown away.

        Raises: as above, also while it is read.

        Cancellation: Is a checkpoint; so is each piece.
        """
        name = self._bucket(bucket)
        with self._counted():
            with self._asking(name, key):
                answer = await self.client.get_object(Bucket=name, Key=key)
            async with answer["Body"] as body, aclosing(self._read(body, name, key)) as content:
                yield content

    async def _read(self, body: Any, bucket: str, key: str) -> AsyncGenerator[bytes]:  # noqa: ANN401  aiobotocore's
        with self._asking(bucket, key):
            async for piece in body.iter_chunks(_PIECE):
                yield piece

    async def metadata(self, key: str, *, bucket: str = "") -> ObjectInfo:
        """Return what is known of an object.

        Cancellation: Is a checkpoint.
        """
        name = self._bucket(bucket)
        with self._using(name, key):
            answer = await self.client.head_object(Bucket=name, Key=key)
        return ObjectInfo(
            key=key,
            size=answer["ContentLength"],
            etag=_bare(answer["ETag"]),
            modified=answer["LastModified"],
            content_type=answer.get("ContentType", ""),
            metadata=answer.get("Metadata", {}),
        )

    async def delete(self, key: str, *, bucket: str = "") -> None:
        """Remove an object; one that is not there is removed already.

        Cancellation: Is a checkpoint.
        """
        name = self._bucket(bucket)
        with self._using(name, key):
            await self.client.delete_object(Bucket=name, Key=key)

    async def list(self, prefix: str = "", *, bucket: str = "") -> AsyncGenerator[ObjectInfo]:
        """Yield the objects whose keys begin with a prefix, in the order of their keys.

        It asks for a thousand at a time; one that is put or deleted meanwhile may be among them or not.

        Cancellation: Is a checkpoint.
        """
        name = self._bucket(bucket)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
        with self._using(name, prefix):
            async for page in pages:
                for one in page.get("Contents", ()):
                    size, etag, modified = one["Size"], _bare(one["ETag"]), one["LastModified"]
                    yield ObjectInfo(key=one["Key"], size=size, etag=etag, modified=modified)  # noqa: ASYNC911  each page waits

    async def presign(
        self, key: str, *, method: Literal["get", "put"] = "get", expires: float = 3600.0, bucket: str = ""
    ) -> str:
        """Return an address at which anybody can get, or put, an object for a while. It is as secret as a password.

        Args:
            key: Its name.
            method: What can be done there.
            expires: Seconds for which it can; a week at most.
            bucket: As above.

        Raises:
            ValueError: if `expires` is out of range.

        Cancellation: Is a checkpoint. Nothing is sent.
        """
        if not 1 <= expires <= 7 * 86_400:
            raise ValueError(f"expires must be from 1 s to a week, not {expires:g}")
        await trio.lowlevel.checkpoint()
        told = {"Bucket": self._bucket(bucket), "Key": key}
        url = await self.client.generate_presigned_url(f"{method}_object", Params=told, ExpiresIn=int(expires))
        return str(url)

    async def probe(self) -> None:
        """Ask whether the bucket of the manifest is there, and ours to use.

        Raises: as above.

        Cancellation: Is a checkpoint.
        """
        with self._using(self._config.bucket, ""):
            await self.client.head_bucket(Bucket=self._config.bucket)

    def usage(self) -> Usage:
        """Return how many requests are under way now. May be called from any thread."""
        limit, under_way = self._config.max_connections, self._under_way
        return Usage(used=min(under_way, limit), waiting=max(0, under_way - limit), limit=limit)

    def _bucket(self, given: str) -> str:
        name = given or self._config.bucket
        if not name:
            raise ValueError("no bucket: give one with the call, or `bucket` in the driver's table")
        return name

    @contextmanager
    def _using(self, bucket: str, key: str) -> Generator[None]:
        """Do both that follow, as whatever makes a request does."""
        with self._counted(), self._asking(bucket, key):
            yield

    @contextmanager
    def _counted(self) -> Generator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    @contextmanager
    def _asking(self, bucket: str, key: str) -> Generator[None]:
        """Translate what goes wrong, and note whether the service is there."""
        try:
            with translated(f"{bucket}/{key}"):
                yield
        except PoolExhaustedError:
            raise
        except UnavailableError as error:
            self._health.note(error)
            raise
        self._health.note(None)


def _bare(etag: str) -> str:
    return etag.strip('"')
