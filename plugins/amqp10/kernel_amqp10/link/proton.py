"""What is used of python-qpid-proton, as types; the package itself is optional, since it has to be compiled.

Source: python-qpid-proton 0.40, `proton.Transport`, `proton.Connection`, `proton.Collector` and what they hand out.
"""

# ruff: noqa: D102  the methods are described there

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from kernel.errors import StartupError

MISSING: Final = (
    "python-qpid-proton is not installed, the engine that speaks AMQP 1.0. It is compiled when it is installed:"
    " `apt-get install gcc python3-dev libssl-dev` (or what your system has in their place), then"
    " `pip install 'trio-kernel-amqp10[engine]'`"
)


class Condition(Protocol):
    """Why something ended."""

    name: str
    description: str | None


class Terminus(Protocol):
    """Source or target of a link."""

    address: str | None
    durability: int


class Disposition(Protocol):
    """What one side says of a delivery."""

    failed: bool
    undeliverable: bool
    condition: Condition | None


class ProtonDelivery(Protocol):
    """One message on its way."""

    kernel_slot: Any
    """Ours: what the delivery belongs to."""
    local: Disposition
    remote: Disposition

    @property
    def pending(self) -> int: ...
    @property
    def partial(self) -> bool: ...
    @property
    def aborted(self) -> bool: ...
    @property
    def readable(self) -> bool: ...
    @property
    def settled(self) -> bool: ...
    @property
    def remote_state(self) -> int: ...
    def update(self, state: int) -> None: ...
    def settle(self) -> None: ...


class ProtonLink(Protocol):
    """A sender or receiver."""

    kernel_slot: Any
    """Ours: who is told what happens to it."""
    snd_settle_mode: int
    max_message_size: int

    @property
    def credit(self) -> int: ...
    @property
    def source(self) -> Terminus: ...
    @property
    def target(self) -> Terminus: ...
    @property
    def remote_source(self) -> Terminus: ...
    @property
    def remote_target(self) -> Terminus: ...
    @property
    def remote_condition(self) -> Condition | None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def free(self) -> None: ...
    def flow(self, credit: int) -> None: ...
    def delivery(self, tag: str) -> ProtonDelivery: ...
    def send(self, data: bytes) -> int: ...
    def recv(self, limit: int) -> bytes | None: ...
    def advance(self) -> bool: ...


class ProtonSession(Protocol):
    """What links are in; it ends as a whole."""

    kernel_slot: Any
    """Ours: who is told what happens to it."""
    incoming_capacity: int

    @property
    def remote_condition(self) -> Condition | None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def free(self) -> None: ...
    def sender(self, name: str) -> ProtonLink: ...
    def receiver(self, name: str) -> ProtonLink: ...


class ProtonConnection(Protocol):
    """One side of a connection."""

    container: str
    hostname: str
    user: str
    password: str
    properties: Mapping[str, object]

    @property
    def remote_condition(self) -> Condition | None: ...
    def collect(self, collector: Collector) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def session(self) -> ProtonSession: ...


class Sasl(Protocol):
    """The login."""

    allow_insecure_mechs: bool

    @property
    def outcome(self) -> int | None: ...
    def allowed_mechs(self, mechs: str) -> None: ...


class Transport(Protocol):
    """Bytes in, bytes out."""

    max_frame_size: int
    channel_max: int
    idle_timeout: float

    @property
    def condition(self) -> Condition | None: ...
    def sasl(self) -> Sasl: ...
    def bind(self, connection: ProtonConnection) -> None: ...
    def capacity(self) -> int: ...
    def push(self, data: bytes) -> None: ...
    def close_tail(self) -> None: ...
    def close_head(self) -> None: ...
    def pending(self) -> int: ...
    def peek(self, size: int) -> bytes | None: ...
    def pop(self, size: int) -> None: ...
    def tick(self, now: float) -> float: ...


class EngineEvent(Protocol):
    """Something that happened."""

    @property
    def type(self) -> object: ...
    @property
    def link(self) -> ProtonLink: ...
    @property
    def session(self) -> ProtonSession: ...
    @property
    def delivery(self) -> ProtonDelivery: ...


class Collector(Protocol):
    """What happened and was not looked at."""

    def peek(self) -> EngineEvent | None: ...
    def pop(self) -> None: ...


class ProtonMessage(Protocol):
    """A message as bytes and as Python values."""

    body: Any
    inferred: bool
    durable: bool
    priority: int
    ttl: float
    first_acquirer: bool
    delivery_count: int
    id: Any
    subject: str | None
    address: str | None
    reply_to: str | None
    correlation_id: Any
    content_type: str | None
    creation_time: float
    properties: Mapping[str, Any] | None
    annotations: Mapping[Any, Any] | None

    def encode(self) -> bytes: ...
    def decode(self, data: bytes) -> None: ...


class Core(Protocol):
    """The functions below the classes: for what is done with every message, those make objects that nobody needs."""

    def addressof(self, pointer: object) -> int: ...
    def pn_collector_peek(self, collector: object) -> object: ...
    def pn_event_type(self, event: object) -> int: ...
    def pn_event_delivery(self, event: object) -> object: ...
    def pn_event_link(self, event: object) -> object: ...
    def pn_collector_pop(self, collector: object) -> bool: ...
    def pn_delivery_aborted(self, delivery: object) -> bool: ...
    def pn_delivery_partial(self, delivery: object) -> bool: ...
    def pn_delivery_pending(self, delivery: object) -> int: ...
    def pn_delivery_readable(self, delivery: object) -> bool: ...
    def pn_delivery_settle(self, delivery: object) -> None: ...
    def pn_delivery_update(self, delivery: object, state: int) -> None: ...
    def pn_link_advance(self, link: object) -> bool: ...
    def pn_link_credit(self, link: object) -> int: ...
    def pn_link_queued(self, link: object) -> int: ...
    def pn_link_recv(self, link: object, limit: int) -> tuple[int, bytes]: ...
    def pn_message_body(self, message: object) -> object: ...
    def pn_message_decode(self, message: object, data: bytes) -> int: ...
    def pn_message_properties(self, message: object) -> object: ...
    def pn_message_get_content_type(self, message: object) -> str | None: ...
    def pn_message_get_correlation_id(self, message: object) -> object: ...
    def pn_message_get_creation_time(self, message: object) -> int: ...
    def pn_message_get_delivery_count(self, message: object) -> int: ...
    def pn_message_get_id(self, message: object) -> object: ...
    def pn_message_get_priority(self, message: object) -> int: ...
    def pn_message_get_reply_to(self, message: object) -> str | None: ...
    def pn_message_get_subject(self, message: object) -> str | None: ...
    def pn_message_is_first_acquirer(self, message: object) -> bool: ...
    def pn_data_get_binary(self, data: object) -> bytes: ...
    def pn_data_next(self, data: object) -> bool: ...
    def pn_data_type(self, data: object) -> int: ...


class Proton(Protocol):
    """The package."""

    Data: Any
    Event: Any
    Delivery: Any
    SASL: Any
    ProtonException: type[Exception]
    symbol: type[str]

    def Connection(self) -> ProtonConnection: ...  # noqa: N802  a class there
    def Transport(self) -> Transport: ...  # noqa: N802
    def Collector(self) -> Collector: ...  # noqa: N802
    def Message(self) -> ProtonMessage: ...  # noqa: N802


def load_core() -> Core:
    """Return the functions below the package, which is there."""
    return cast("Core", importlib.import_module("cproton"))


def pointer_of(wrapper: object) -> object:
    """Return what the functions of the core take for an object of the package."""
    return wrapper.__dict__["_impl"]


def message_of(wrapper: object) -> object:
    """Return what the functions of the core take for a message."""
    return wrapper.__dict__["_msg"]


def is_installed() -> bool:
    """Return whether the package is there, without importing it."""
    return importlib.util.find_spec("proton") is not None


def load() -> Proton:
    """Return the package.

    Raises:
        StartupError: if it is not installed, or does not fit the Python that runs; says what to do.
    """
    try:
        return cast("Proton", importlib.import_module("proton"))
    except ImportError as error:
        raise StartupError(MISSING if not is_installed() else f"python-qpid-proton cannot be used: {error}") from error
