"""Leases: a row each, written over the version that was read by one statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, final

import attrs
import psycopg
from typing_extensions import override

from kernel.abc import Lease, LeaseState
from kernel.errors import UnavailableError, UnknownOutcomeError

from ._tables import CREATE_LEASES, FIRST_LEASE, NEXT_LEASE, READ_LEASE

Rows: TypeAlias = list[tuple[Any, ...]]
Execute: TypeAlias = Callable[[str, tuple[object, ...]], Awaitable[Rows]]


@final
@attrs.frozen(eq=False, repr=False)
class DatabaseLease(Lease):
    """A row of the table `kernel_lease`, which is made when it is first needed."""

    _execute: Execute
    """Runs a statement in a transaction of its own."""
    _name: str

    @override
    async def read(self) -> LeaseState:
        try:
            [(version, value, now)] = await self._with_table(READ_LEASE, (self._name,))
        except psycopg.Error as error:
            raise UnavailableError(f'the lease "{self._name}" cannot be read: {error}') from error
        return LeaseState(version=version, value=value, now=now)

    @override
    async def write(self, value: str, *, after: int) -> bool:
        statement, parameters = (
            (NEXT_LEASE, (value, self._name, after)) if after else (FIRST_LEASE, (value, self._name))
        )
        try:
            return bool(await self._with_table(statement, parameters))
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            # Somebody else has written, where the database is stricter than it is by default.
            return False  # noqa: ASYNC910  the statement is one
        except psycopg.Error as error:
            if error.sqlstate is None:  # the connection broke
                raise UnknownOutcomeError(f'it is not known whether "{self._name}" was written: {error}') from error
            raise UnavailableError(f'the lease "{self._name}" cannot be written: {error}') from error

    async def _with_table(self, statement: str, parameters: tuple[object, ...]) -> Rows:
        try:
            return await self._execute(statement, parameters)
        except psycopg.errors.UndefinedTable:
            await self._execute(CREATE_LEASES, ())
            return await self._execute(statement, parameters)
