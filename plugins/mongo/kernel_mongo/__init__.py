"""The driver `mongo`: collections of MongoDB, through a loop of asyncio."""

from __future__ import annotations

from ._collection import Collection as Collection
from ._collection import Mongo as Mongo
from ._config import IndexTable as IndexTable
from ._config import MongoConfig as MongoConfig
from ._driver import MongoDriver as MongoDriver

__all__ = ["Collection", "IndexTable", "Mongo", "MongoConfig", "MongoDriver"]
