"""Typed events for kernel over any broker: a class is an event, and a method listens to it."""

from __future__ import annotations

from ._catching import catches as catches
from ._dispatcher import EventListenerDispatcher as EventListenerDispatcher
from ._driver import Events as Events
from ._driver import EventSenderConfig as EventSenderConfig
from ._driver import EventSenderDriver as EventSenderDriver
from ._event import event as event
from ._event import upgrades as upgrades
from ._listening import listens as listens
from ._queues import EventListenerConfig as EventListenerConfig
from ._queues import ListenerOptions as ListenerOptions
