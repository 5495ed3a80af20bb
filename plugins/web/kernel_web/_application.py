"""What an ASGI application looks like, and how one is found in a worker. Pure."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

ASGIMessage: TypeAlias = MutableMapping[str, Any]
"""The ASGI specification leaves the values to each message, so nothing narrower is true."""
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]
Application: TypeAlias = Callable[[ASGIMessage, Receive, Send], Awaitable[None]]

EXPECTED = (
    "is no ASGI application and has none: make it callable as (scope, receive, send), "
    "or give it an attribute or property `app` that is, or a `router` of FastAPI"
)


def find_application(instance: object) -> Application | None:
    """Return the application of a worker's instance: itself, or its `app`; None if neither is one."""
    if is_router(instance):  # callable as one, but a part of one
        return None
    if _takes_three(instance):
        return instance  # type: ignore[return-value]  # the signature was looked at
    app = getattr(instance, "app", None)
    return app if _takes_three(app) else None


def find_router(instance: object) -> object | None:
    """Return the `APIRouter` of a worker's instance: itself, or its `router`; None if neither is one."""
    router = instance if is_router(instance) else getattr(instance, "router", None)
    return router if is_router(router) else None


def is_router(candidate: object) -> bool:
    """Whether it is an `APIRouter` of FastAPI: that can only be if FastAPI has been imported."""
    fastapi = sys.modules.get("fastapi")
    return fastapi is not None and isinstance(candidate, fastapi.APIRouter)


def brings_router(worker: object) -> bool:
    """Whether a worker's class or object brings a router, as far as its code says; its `app` comes first."""
    if not isinstance(worker, type):
        return find_application(worker) is None and find_router(worker) is not None
    return not (_call_of(worker) or _has(worker, "app")) and _has(worker, "router")


def shape_problem(worker: object) -> str:
    """Return what is wrong with a worker's class, function or object, or an empty string.

    A plain function builds the application, and a class may set `app` in its constructor: `host` looks again.
    """
    if inspect.iscoroutinefunction(worker):
        return "" if _positionals(worker) >= 3 else f"{_name(worker)} must take (scope, receive, send)"
    if inspect.isroutine(worker):
        return ""
    if not isinstance(worker, type):
        found = find_application(worker) or find_router(worker)
        return "" if found is not None else f"{_name(worker)} {EXPECTED}"
    call = _call_of(worker)
    if call is not None:
        return "" if _accepts(call, 4) else f"{_name(worker)}.__call__ must take (self, scope, receive, send)"
    return "" if _has(worker, "app") or _has(worker, "router") else f"{_name(worker)} {EXPECTED}"


def _call_of(cls: type[object]) -> object | None:
    # Not getattr: every class is callable itself, by its metaclass.
    return next((vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)), None)


def _has(cls: type[object], name: str) -> bool:
    """Whether a class has an attribute, or its constructor stores one in `self`, as far as its code says."""
    if hasattr(cls, name) or name in getattr(cls, "__annotations__", {}):
        return True
    functions = (vars(base).get("__init__") for base in cls.__mro__)
    return any(name in function.__code__.co_names for function in functions if inspect.isfunction(function))


def _positionals(function: Callable[..., object]) -> int:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 3
    return sum(parameter.kind <= parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)


def _takes_three(candidate: object) -> bool:
    return callable(candidate) and not isinstance(candidate, type) and _accepts(candidate, 3)


def _accepts(function: object, count: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # a callable without a signature, written in C: nothing can be said
        return True
    return True


def _name(worker: object) -> str:
    return str(getattr(worker, "__qualname__", type(worker).__qualname__))
