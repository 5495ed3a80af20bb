"""What workers are given: collections whose calls wait with trio, and are made in asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast, final

import attrs
import trio

from kernel.abc import Executor, PlainWorker

from ._errors import translated

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase
    from pymongo.results import BulkWriteResult, UpdateResult

ResultT = TypeVar("ResultT")
Document: TypeAlias = dict[str, Any]
Filter: TypeAlias = Mapping[str, Any]
Update: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Database: TypeAlias = "AsyncDatabase[Document]"
_CLOSE_TIMEOUT: Final = 1.0
"""Seconds that the server may take to forget a cursor; it forgets by itself later."""


@final
@attrs.define(eq=False, repr=False)
class Mongo:
    """One database; `mongo["orders"]` is a collection of it."""

    database: Database
    """pymongo's `AsyncDatabase`, to be used in functions given to `run`."""
    _component: str
    _executor: Executor
    batch: int
    """Documents that an iteration asks for at a time."""
    calls: int = attrs.field(default=0, init=False)
    """How many are under way."""

    def __getitem__(self, name: str) -> Collection:
        return Collection(self, name)

    async def run(self, function: Callable[..., Awaitable[ResultT]], *args: object) -> ResultT:
        """Call an async function of asyncio, with the database first: for transactions, change streams and all else.

        Args:
            function: Is given pymongo's `AsyncDatabase`, whose client is `database.client`.
            args: What it is given besides.

        Raises:
            UnavailableError: if no server takes the request, or the connection is lost: whether a write was done is
                unknown then.
            pymongo.errors.PyMongoError: what the server refuses.
            Exception: what the function raises.

        Cancellation: Is a checkpoint. A request that is cancelled gives its connection up; whether it was done is
            unknown.
        """
        worker = PlainWorker(id=self._component, use=function, is_function=True, arguments={})
        self.calls += 1
        try:
            with translated(self._component):
                return cast("ResultT", await self._executor.call(worker, "", (self.database, *args), {}))
        finally:
            self.calls -= 1


@final
@attrs.frozen(eq=False, repr=False)
class Collection:
    """One collection. Methods and options are pymongo's; what they raise stands at `Mongo.run`."""

    _mongo: Mongo
    name: str

    async def insert_one(self, document: Document, **options: object) -> object:
        """Insert a document, which is given an `_id` if it has none; returns that."""
        return (await self._call("insert_one", document, **options)).inserted_id

    async def insert_many(self, documents: Sequence[Document], **options: object) -> list[object]:
        """Insert documents; returns their ids."""
        return list((await self._call("insert_many", documents, **options)).inserted_ids)

    async def find_one(self, filter_: Filter | None = None, **options: object) -> Document | None:
        """Return a document that fits, or None."""
        return cast("Document | None", await self._call("find_one", filter_, **options))

    def find(self, filter_: Filter | None = None, **options: object) -> AsyncGenerator[Document]:
        """Yield the documents that fit, `batch` at a time; `sort`, `limit`, `skip` and `projection` are options.

        Iterate inside `contextlib.aclosing` where the loop may be left early.
        """
        return self._iterated("find", filter_, **options)

    def aggregate(self, pipeline: Sequence[Filter], **options: object) -> AsyncGenerator[Document]:
        """Yield what a pipeline makes of the documents. Iterate as over `find`."""
        return self._iterated("aggregate", list(pipeline), **options)

    async def count(self, filter_: Filter | None = None, **options: object) -> int:
        """Return how many documents fit."""
        return int(await self._call("count_documents", filter_ or {}, **options))

    async def distinct(self, field: str, filter_: Filter | None = None, **options: object) -> list[object]:
        """Return the values that a field has in the documents that fit."""
        return list(await self._call("distinct", field, filter_, **options))

    async def update_one(self, filter_: Filter, update: Update, **options: object) -> UpdateResult:
        """Change a document that fits, or insert one with `upsert=True`; returns pymongo's `UpdateResult`."""
        return cast("UpdateResult", await self._call("update_one", filter_, update, **options))

    async def update_many(self, filter_: Filter, update: Update, **options: object) -> UpdateResult:
        """Change all documents that fit; returns pymongo's `UpdateResult`."""
        return cast("UpdateResult", await self._call("update_many", filter_, update, **options))

    async def replace_one(self, filter_: Filter, document: Document, **options: object) -> UpdateResult:
        """Put a document in the place of one that fits; returns pymongo's `UpdateResult`."""
        return cast("UpdateResult", await self._call("replace_one", filter_, document, **options))

    async def find_one_and_update(self, filter_: Filter, update: Update, **options: object) -> Document | None:
        """Change a document that fits, at once with returning it; as it was before, unless `return_document` says other."""
        return cast("Document | None", await self._call("find_one_and_update", filter_, update, **options))

    async def find_one_and_delete(self, filter_: Filter, **options: object) -> Document | None:
        """Delete a document that fits, and return it."""
        return cast("Document | None", await self._call("find_one_and_delete", filter_, **options))

    async def delete_one(self, filter_: Filter, **options: object) -> int:
        """Delete a document that fits; returns how many were."""
        return int((await self._call("delete_one", filter_, **options)).deleted_count)

    async def delete_many(self, filter_: Filter, **options: object) -> int:
        """Delete all documents that fit; returns how many were."""
        return int((await self._call("delete_many", filter_, **options)).deleted_count)

    async def bulk_write(self, requests: Sequence[object], **options: object) -> BulkWriteResult:
        """Do many writes in one request; returns pymongo's `BulkWriteResult`."""
        return cast("BulkWriteResult", await self._call("bulk_write", requests, **options))

    # --- how it is done ------------------------------------------------------------------------------------------

    async def _call(self, method: str, *args: object, **options: object) -> Any:  # noqa: ANN401  by the method
        async def ask(database: Database) -> object:
            return await getattr(database[self.name], method)(*args, **options)

        return await self._mongo.run(ask)

    async def _iterated(self, method: str, *args: object, **options: object) -> AsyncGenerator[Document]:
        """Yield what a cursor has; it is closed at the end, or when the caller goes on to something else."""

        async def begin(database: Database) -> Any:  # noqa: ANN401, ASYNC910  of asyncio; a cursor of the one kind or the other
            made = getattr(database[self.name], method)(*args, **options)
            return await made if method == "aggregate" else made  # noqa: ASYNC910  of asyncio, which has no checkpoints

        cursor = await self._mongo.run(begin)
        try:
            while documents := cast("list[Document]", await self._mongo.run(_more, cursor, self._mongo.batch)):
                for one in documents:
                    yield one  # noqa: ASYNC911  each batch waits
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await self._mongo.run(_close, cursor)


async def _more(_: Database, cursor: Any, count: int) -> object:  # noqa: ANN401  of either kind
    return await cursor.to_list(count)


async def _close(_: Database, cursor: Any) -> None:  # noqa: ANN401  as above
    await cursor.close()
