"""The contracts of the components, which plugins implement; public as `kernel.abc`.

Long, since it is what the writer of a plugin reads: few methods, and all that they promise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, final

import attrs

from .broker import Capability, Topology
from .crew import Endpoint
from .envelope import NO_HEADERS, Envelope, Message
from .fields import ByFields
from .intake import Intake

if TYPE_CHECKING:
    import trio


ResourceT_co = TypeVar("ResourceT_co", covariant=True)


@final
@attrs.frozen(eq=False, repr=False)
class NoConfig(ByFields):
    """The configuration of a component that has nothing to configure."""


class Component(ABC):  # noqa: B024  the kinds below add the abstract methods
    """What drivers, dispatchers and protocols have in common."""

    __slots__ = ()

    Config: ClassVar[type[object]] = NoConfig
    """The attrs class of the component's table. Its validators' `ValueError`s become problems of the plan."""
    needs: ClassVar[type[object] | None] = None
    """The type that the resource of `driver = "..."` must have (often `Broker`); None if no driver is needed."""
    speaks: ClassVar[bool] = False
    """Whether `protocol = "..."` must be given."""
    driver_fix: ClassVar[str] = ""
    """What to write in the table for a driver to be used, where that depends on the configuration: a few words, such as
    "write `once = true`". It is shown to who names a driver that would not be used."""
    surrounds: ClassVar[bool] = False
    """Whether it surrounds the service: it is up before everything else starts, but for what it stands on itself, and
    closes after everything else has. For what looks on, such as probes and metrics; it keeps no service running. A
    dispatcher of this kind goes on accepting while the others drain. Its `stop_timeout` is 1 s by default."""

    @classmethod  # noqa: B027  most components have nothing to import
    def preload(cls) -> None:
        """Import what only a running component needs.

        Called before the event loop starts, which a slow import would block; never by `kernel check`. What it
        imports, `open` may import again for nothing.
        """

    @classmethod
    def needs_with(cls, config: object) -> type[object] | None:
        """Return what `needs` says, for a class of which only some configurations need a driver. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
        """
        return cls.needs

    @classmethod
    def requires(cls, config: object) -> frozenset[Capability]:
        """Return what the broker that this component uses must be able to do, given its `Config`."""
        return frozenset()

    @classmethod
    def reads(cls, config: object) -> Iterable[str]:
        """Return the paths of the files that it reads when it opens; empty ones do not count.

        A reload restarts it if what they hold has changed. For certificates and the like, which have to be there, are
        small, and are written by others; not for what it writes itself. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
        """
        return ()

    @classmethod
    def files(cls, config: object) -> Iterable[str]:
        """Return the paths of the files that must be there when it opens; by default, what it `reads`.

        `kernel check` looks whether they are. For what is read and needs no restart when it changes. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
        """
        return cls.reads(config)

    @classmethod
    def appends(cls, config: object) -> Iterable[str]:
        """Return the paths of the files that it adds to, or begins; `kernel check` looks whether that can be.

        Relative ones begin at the folder in which the service is started. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
        """
        return ()

    @classmethod
    def listens(cls, config: object) -> Iterable[Endpoint]:
        """Return where it listens, and nobody else may; two components of a service that do are refused.

        A host may be a name here. An address that processes share, as with `SO_REUSEPORT`, is left out. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
        """
        return ()

    @classmethod
    def check(cls, config: object) -> Iterable[str]:
        """Yield what is wrong with a `Config` that no validator of a single field can see. Pure: no I/O."""
        return ()

    @classmethod
    def check_shared(cls, config: object) -> Iterable[str]:
        """Yield why not each of several processes can have this component, and what to write. Pure: no I/O.

        Asked where the manifest has `processes` above 1.

        Args:
            config: An instance of `Config`.
        """
        return ()


class Renews(ABC):
    """A driver or dispatcher that takes up, without a restart, what others have changed, such as a certificate."""

    __slots__ = ()

    @abstractmethod
    async def renew(self) -> Sequence[str]:
        """Take up what has changed. Called at each reload of the service if it is ready and goes on.

        Returns:
            What is not taken, each with the reason; `kernel reload` tells it, and ends with status 1.

        Cancellation: Is cancelled if it takes longer than half a minute, or the service stops; what was there before
            holds then.
        """


class Driver(Component, Generic[ResourceT_co]):
    """Owns a connection to the outside; opened before and closed after everything that uses it."""

    __slots__ = ()

    provides: ClassVar[type[object]] = object
    """The type of the resource. A worker's constructor parameter annotated with it is checked against it."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    """What the broker can do, if the resource is one, and however it is configured."""
    sends: ClassVar[bool] = False
    """Whether all that is sent with the resource is held against `Context.contract`."""
    intercepts: ClassVar[bool] = False
    """Whether all that is sent with the resource goes through `Context.intercept`, so that the manifest may name
    interceptors for it."""
    BrokerOptions: ClassVar[type[object] | None] = None
    """The attrs class of `options` tables of components that use this broker: what only this broker knows."""

    @classmethod
    def capabilities_of(cls, config: object) -> frozenset[Capability]:
        """Return what the broker can do as it is configured; of `capabilities`, unless the driver says otherwise.

        For a driver that speaks to servers of several kinds. Pure: no I/O.

        Args:
            config: An instance of `Config`.
        """
        return cls.capabilities

    @classmethod
    def check_topology(cls, config: object, topology: Topology) -> Iterable[str]:
        """Yield what of the topology that one component asks for cannot be declared. Pure: no I/O.

        Args:
            config: An instance of `Config`.
            topology: What `Dispatcher.topology` of the component returned.
        """
        return ()

    @classmethod
    def advise(cls, config: object, topologies: Sequence[Topology]) -> Iterable[str]:
        """Yield what is allowed and may not be meant; `kernel check` shows it as warnings. Pure: no I/O.

        Args:
            config: An instance of `Config`.
            topologies: What the dispatchers that use the driver ask for, each its own.
        """
        return ()

    @classmethod
    def remains(cls, config: object, topology: Topology) -> Iterable[str]:
        """Yield what of a topology stays at the broker once no manifest asks for it, each with how to end it.

        `kernel plan --diff` and a reload show it. By default, nothing if the broker is not `DURABLE`. Pure: no I/O.

        Args:
            config: An instance of `Config`.
            topology: Queues, and bindings of these and of others, that a reload leaves out.
        """
        if Capability.DURABLE not in cls.capabilities_of(config):
            return ()
        return topology.staying(
            delete=lambda _name: "delete it at the broker", unbind=lambda _binding: "unbind it at the broker"
        )

    @classmethod
    def hold_limit(cls, config: object) -> float:
        """Return the seconds after which what was taken and not settled is taken for lost; infinite if it never is.

        `kernel check` warns where workers may hold a delivery for longer. Pure: no I/O.

        Args:
            config: An instance of `Config`.
        """
        return math.inf

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[ResourceT_co]:
        """Connect; inside, the resource is usable; after the exit everything is closed.

        The resource stays valid across reconnects: calls wait for the connection inside the caller's own
        deadline, or raise a typed error. When it cannot be healed, raise: the supervisor restarts the driver
        and exactly those who use it.

        Raises:
            StartupError: if it can never work as configured.

        Cancellation: Is a checkpoint on entry; entry is cancelled after `start_timeout`. Cancelled entry leaves
            nothing behind. The exit is cancelled before `stop_timeout` is over.
        """


class Protocol(Component):
    """Bytes and headers <-> messages. Pure: no I/O, no clock, no async method; safe to share.

    A payload may be `Arguments`: what a protocol of calls decodes to, and what any may be given to encode. One that
    has no shape of its own for them writes an object with the keys `args` and `kwargs`, which `@answers` understands.
    """

    __slots__ = ()

    always_replies: ClassVar[bool] = False
    """Whether `encode_reply` is asked about every result, also where the request has no `reply_to`."""

    @abstractmethod
    def decode(self, envelope: Envelope) -> Message:
        """Return what an envelope means.

        Raises:
            DecodeError: if it means nothing in this protocol. Nothing else may escape, whatever the bytes are.
        """

    @abstractmethod
    def encode(self, message: Message) -> Envelope:
        """Return the envelope for a message.

        Raises:
            EncodeError: if the payload cannot be written.
        """

    def encode_reply(self, request: Envelope, result: object) -> Envelope | None:
        """Return the answer to a request, or None if none is wanted.

        Asked only about requests with a `reply_to`, unless `always_replies`; then the answer's subject says where it
        goes.

        Raises:
            EncodeError: if the result cannot be written.
        """
        if not request.reply_to:
            return None
        reply = self.encode(Message(subject=request.reply_to, payload=result))
        return attrs.evolve(reply, correlation_id=request.correlation_id)

    @abstractmethod
    def encode_error(self, request: Envelope, error: Exception) -> Envelope | None:
        """Return the answer to a request whose handler raised, or that could not be decoded.

        Only asked about requests with a `reply_to`. None if the protocol cannot tell errors: the request is
        dead-lettered.

        Raises:
            EncodeError: if the error cannot be written; as None.
        """

    def decode_reply(self, reply: Envelope) -> object:
        """Return the result that an answer carries.

        Raises:
            RemoteError: if the other side answered with an error.
            DecodeError: if it means nothing in this protocol.
            Exception: of a class that the protocol's configuration lists, if that is what the other side names.
                No class is looked up by a name from the wire.
        """
        return self.decode(reply).payload

    def continued(self, cause: Envelope) -> Mapping[str, object]:
        """Return the headers that a message inherits when it is sent while another one is handled.

        For what ties messages together, such as the ids of a chain of calls. Never raises, whatever the headers of
        the cause are: they come from outside.

        Args:
            cause: What is being handled.
        """
        return NO_HEADERS


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Candidate(ByFields):
    """One worker as the plan shows it to its dispatcher's class, before there is an instance."""

    __repr__ = object.__repr__  # it holds what the user wrote

    worker: object
    """Its class, function or object; None if it could not be imported."""
    options: object
    """What `Dispatcher.WorkerOptions` made of its `options` table; None if there is nothing to make."""


class Dispatcher(Component):
    """Brings deliveries in from a source and settles them."""

    __slots__ = ()

    WorkerOptions: ClassVar[type[object] | None] = None
    """The attrs class of the `options` table of this dispatcher's workers; None if they may have none."""
    delivers: ClassVar[bool] = True
    """Whether it uses the pipeline, so that its workers need handlers; False if `host` decides what they need."""
    default_concurrency: ClassVar[int] = 10
    """How many may be in flight where the manifest does not say."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold what outlives accepting: the connection, the listener, tasks that finish what is in flight.

        Entered first, left last, after everything in flight has been settled.

        Cancellation: as `Driver.open`.
        """

    @abstractmethod
    async def accept(self, intake: Intake, *, task_status: trio.TaskStatus[None]) -> None:
        """Bring deliveries in until cancelled; calls `task_status.started()` when the source is connected.

        Called when all dispatchers that the service cannot do without have opened.

        Cancelled as soon as nothing new may be accepted. What was submitted goes on. Raises when the source is
        broken: the supervisor restarts the dispatcher. Returning means that the source has ended.

        Cancellation: Is a checkpoint. Nothing may be taken from the source after it.
        """

    @classmethod
    def topology(cls, config: object) -> Topology | None:
        """Return what must exist at the broker that it uses before anybody may send there; None for nothing.

        The kernel declares it as soon as that driver is open, so that no worker of the service is faster. What the
        broker refuses of it is for `open` to declare again, and to raise.

        Args:
            config: An instance of its `Config`.
        """
        return None

    @classmethod
    def worker_topology(cls, config: object, workers: Mapping[str, Candidate], *, service: str) -> Topology | None:
        """Return what must exist besides, because of the workers that it feeds; None for nothing. As `topology`.

        Args:
            config: An instance of its `Config`.
            workers: By name.
            service: The name of the service.
        """
        return None

    @classmethod
    def host(cls, instance: object, options: object) -> AbstractAsyncContextManager[object]:
        """Wrap one worker instance for this dispatcher: entered once the instance is, left before it is.

        Args:
            instance: The worker's object, or its bound function.
            options: An instance of `WorkerOptions`, or None.

        Returns:
            A context manager; what it yields is what `Target.hosted` returns.
        """
        return nullcontext(instance)

    @classmethod
    def check_worker(cls, worker: object, options: object) -> Iterable[str]:
        """Yield what keeps this dispatcher from using a worker (its class or function, not an instance)."""
        return ()

    @classmethod
    def only_subject(cls, config: object, name: str) -> str | None:
        """Return the subject of all that it brings, if there is one; None if there may be others.

        A handler for something else would never be called, so `kernel check` refuses it. Pure: no I/O.

        Args:
            config: An instance of its `Config`.
            name: The dispatcher's, without its kind.
        """
        return None

    @classmethod
    def check_workers(cls, config: object, workers: Mapping[str, Candidate]) -> Iterable[str]:
        """Yield what is wrong with the workers taken together, which are given by name."""
        return ()
