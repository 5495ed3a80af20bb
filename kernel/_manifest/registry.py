"""What is installed: entry points by kind and name, imported one at a time and only when asked for.

`discover()` reads metadata alone. A plugin is imported by `Plugin.load` or `Registry.load`, which turn every way in
which somebody else's module can fail into a `PluginLoadError` that names the distribution.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from functools import reduce
from importlib import import_module
from typing import Final, Literal, final, overload

import attrs

from .._core.fields import ByFields
from .._core.words import did_you_mean, listed
from ..abc import Component, Dispatcher, Driver, Protocol
from ..errors import PluginDuplicateError, PluginLoadError, PluginNotFoundError
from .installed import entry_points

GROUPS: Final[Mapping[str, str]] = {
    "driver": "kernel.drivers",
    "protocol": "kernel.protocols",
    "dispatcher": "kernel.dispatchers",
    "worker": "kernel.workers",
    "command": "kernel.commands",
    "stage": "kernel.stages",
}
"""Kind -> entry-point group."""
_KINDS: Final = {group: kind for kind, group in GROUPS.items()}
CONTRACTS: Final[Mapping[str, type[Component]]] = {"driver": Driver, "protocol": Protocol, "dispatcher": Dispatcher}
_CONFIGS: Final = ("Config", "BrokerOptions", "WorkerOptions")
_PREFIX: Final = "trio-kernel-"
_SHIPPED: Final[Mapping[str, str]] = {
    **{
        name: name
        for name in (
            "amqp",
            "amqp10",
            "asyncio",
            "bpm",
            "external",
            "health",
            "http",
            "json",
            "memory",
            "mongo",
            "otel",
            "postgres",
            "prometheus",
            "raw",
            "sentry",
            "redis",
            "s3",
            "sqlite",
            "stomp",
            "timer",
            "web",
        )
    },
    **dict.fromkeys(("event_listener", "event_sender"), "events"),
    **dict.fromkeys(("process_pool", "thread_pool"), "pools"),
    **dict.fromkeys(("consumer", "publisher", "rpc_client"), "messaging"),
    **dict.fromkeys(("msgpack", "service_framework"), "msgpack"),
    **dict.fromkeys(("nameko_events", "nameko_rpc"), "nameko"),
    **dict.fromkeys(("ufw_backoff", "ufw_rpc", "ufw_targets"), "ufw"),
    **dict.fromkeys(("jsonrpc", "ufw_websocket", "websocket", "websocket_client"), "websocket"),
    **dict.fromkeys(("zmq_proxy", "zmq_publish", "zmq_reply", "zmq_request", "zmq_subscribe"), "zmq"),
}
"""Plugins of the kernel's own distributions -> what follows `trio-kernel-` in their names; for advice alone."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Plugin(ByFields):
    """One installed entry point; nothing of it is imported yet."""

    kind: str
    """A key of `GROUPS`."""
    name: str
    distribution: str
    version: str
    value: str
    """`module:attribute`."""
    given: object = attrs.field(default=None, repr=False)
    """The object itself, for plugins that are handed in rather than installed."""

    def __str__(self) -> str:
        return f"{self.distribution}=={self.version}"

    def load(self) -> object:
        """Import the plugin and return what its entry point names.

        Raises:
            PluginLoadError: if the import raises anything or exits, or the attribute is missing.
        """
        if self.given is not None:
            return self.given
        try:
            module, _, attribute = self.value.partition("[")[0].partition(":")
            found: object = import_module(module.strip())
            return reduce(getattr, filter(None, attribute.strip().split(".")), found)
        except (Exception, SystemExit) as exc:
            raise self.broken(f"{type(exc).__name__}: {exc}") from exc

    def broken(self, reason: str) -> PluginLoadError:
        """Return the error that says why the plugin cannot be used."""
        where = f"{self.kind} {self.name} of {self} (entry point {self.value})"
        return PluginLoadError(f"{where} cannot be loaded: {reason}", kind=self.kind, name=self.name)


@final
@attrs.frozen(eq=False, repr=False)
class Registry(ByFields):
    """The plugins that may be used."""

    __repr__ = object.__repr__  # it grows with what is installed

    plugins: tuple[Plugin, ...] = ()
    refused: tuple[Plugin, ...] = ()
    """Installed, but not in the allow-list."""

    @classmethod
    def of(cls, groups: Mapping[str, Mapping[str, object]]) -> Registry:
        """Return a registry of objects at hand: `Registry.of({"drivers": {"fake": FakeDriver}})`."""
        return cls(
            tuple(
                _given(_KINDS[f"kernel.{group}"], name, value)
                for group, members in groups.items()
                for name, value in members.items()
            )
        )

    def allowing(self, names: Collection[str] | None) -> Registry:
        """Return a registry in which only some plugins are found; None allows all.

        Args:
            names: Names of plugins (`sqlite`), of distributions (`trio-kernel-messaging`, or `messaging` for short)
                or both (`trio-kernel-sqlite:sqlite`).
        """
        if names is None:
            return self
        allowed = [plugin for plugin in self.plugins if _is_named(plugin, names)]
        refused = [plugin for plugin in self.plugins if not _is_named(plugin, names)]
        return Registry(tuple(allowed), (*self.refused, *refused))

    def find(self, kind: str, name: str) -> Plugin:
        """Return the plugin of a kind that has a name, not imported.

        Args:
            kind: A key of `GROUPS`.
            name: Its name; `distribution:name` where several distributions provide it.

        Raises:
            PluginNotFoundError: if there is none, or the allow-list leaves it out.
            PluginDuplicateError: if several distributions provide it.
        """
        found = _named(self.plugins, kind, name)
        if not found:
            raise PluginNotFoundError(self._not_found(kind, name), kind=kind, name=name)
        if len(found) > 1:
            owners = listed([f"{plugin} ({plugin.value})" for plugin in found], last="and")
            qualified = f'"{found[0].distribution}:{found[0].name}"'
            text = f"{kind} {name} is provided by {owners}; uninstall one, or write {qualified} to choose"
            raise PluginDuplicateError(text, kind=kind, name=name)
        return found[0]

    @overload
    def load(self, kind: Literal["driver"], name: str) -> type[Driver[object]]: ...
    @overload
    def load(self, kind: Literal["protocol"], name: str) -> type[Protocol]: ...
    @overload
    def load(self, kind: Literal["dispatcher"], name: str) -> type[Dispatcher]: ...
    @overload
    def load(self, kind: str, name: str) -> object: ...
    def load(self, kind: str, name: str) -> object:
        """Import a plugin and check that it is what its kind must be.

        Returns:
            The component class; for workers and commands whatever the entry point names.

        Raises:
            PluginNotFoundError: as `find`.
            PluginDuplicateError: as `find`.
            PluginLoadError: if it cannot be imported, or does not meet the contract of its kind.
        """
        plugin = self.find(kind, name)
        loaded = plugin.load()
        if kind in CONTRACTS and (fault := component_fault(loaded, CONTRACTS[kind])):
            raise plugin.broken(fault)
        return loaded

    def _not_found(self, kind: str, name: str) -> str:
        if refused := _named(self.refused, kind, name):
            return f"{kind} {name} of {refused[0]} is not in the allow-list of the manifest ([kernel].plugins)"
        installed = sorted({plugin.name for plugin in self.plugins if plugin.kind == kind})
        others = [plugin.kind for plugin in self.plugins if plugin.name == name]
        hint = f"; {name} is a {others[0]};" if others else did_you_mean(name, installed) or ";"
        return f"no installed distribution provides the {kind} {name}{hint} installed: {listed(installed)}; {_advice(name)}"


def _advice(name: str) -> str:
    if name in _SHIPPED:
        return f"to install it: pip install {_PREFIX}{_SHIPPED[name]}"
    return f"the kernel's own plugins are installed with: pip install {_PREFIX}NAME"


def discover() -> Registry:
    """Return everything that is installed, in the order of its names. Reads the metadata of distributions: slow."""
    plugins = [
        Plugin(
            kind=_KINDS[one.group], name=one.name, distribution=one.distribution, version=one.version, value=one.value
        )
        for one in entry_points(_KINDS)
    ]
    return Registry(tuple(sorted(plugins, key=lambda plugin: (plugin.kind, plugin.name, plugin.distribution))))


def _given(kind: str, name: str, value: object) -> Plugin:
    module = getattr(value, "__module__", "") or ""
    where = f"{module}:{getattr(value, '__qualname__', type(value).__qualname__)}"
    return Plugin(kind=kind, name=name, distribution=module.partition(".")[0], version="0", value=where, given=value)


def _named(plugins: Collection[Plugin], kind: str, name: str) -> list[Plugin]:
    distribution, _, short = name.rpartition(":")
    return [
        plugin
        for plugin in plugins
        if plugin.kind == kind
        and plugin.name == short
        and (not distribution or _normalized(distribution) in _distribution_names(plugin))
    ]


def _is_named(plugin: Plugin, names: Collection[str]) -> bool:
    known = _distribution_names(plugin)
    for name in names:
        distribution, _, short = name.rpartition(":")
        if distribution:
            if short == plugin.name and _normalized(distribution) in known:
                return True
        elif short == plugin.name or _normalized(short) in known:
            return True
    return False


def _distribution_names(plugin: Plugin) -> tuple[str, str]:
    name = _normalized(plugin.distribution)
    return name, name.removeprefix(_PREFIX)


def _normalized(distribution: str) -> str:
    """Source: Python packaging, name normalization (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def component_fault(loaded: object, contract: type[Component]) -> str:
    """Return why an object is not a usable component class, or nothing."""
    if not isinstance(loaded, type):
        return f"it must be a class, not {type(loaded).__name__}"
    if not issubclass(loaded, contract):
        return f"it must be a subclass of kernel.abc.{contract.__name__}"
    if inspect.isabstract(loaded):
        missing = sorted(loaded.__abstractmethods__)
        return f"it does not define {listed(missing, last='and')}"
    for attribute in _CONFIGS:
        config: object = getattr(loaded, attribute, None)
        if (config or attribute == "Config") and not (isinstance(config, type) and attrs.has(config)):
            return f"its {attribute} must be an attrs class"
    return ""
