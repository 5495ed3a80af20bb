from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from kernel_stomp import StompConfig, StompDriver, StompOptions
from kernel_stomp._config import TlsTable
from kernel_stomp._settings import link_settings

from kernel import Secret
from kernel.abc import Capability, Queue, Topology
from kernel.errors import StartupError


@pytest.mark.parametrize(
    "table",
    [
        {"hosts": ()},
        {"hosts": ("stomp://here",)},
        {"hosts": ("::1",)},
        {"login": "a\nb"},
        {"heartbeat": 0.5},
        {"max_message_bytes": 0},
        {"backoff_initial": 0.0},
    ],
)
def test_what_makes_no_sense_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="|".join((*table, "hosts", "host:port", "IPv6"))):
        StompConfig(**table)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"hosts": ("queue.example",)}, "`passcode` is missing"),
        ({"login": "shop"}, "`passcode` is missing"),
        ({"login": "", "passcode": Secret("x")}, "`passcode` has no effect"),
        ({"backoff_initial": 3.0, "backoff_max": 2.0}, "`backoff_max`"),
        ({"delays": True}, "`delays` is for ActiveMQ"),
        ({"queues": ("a",)}, "`queues` is for ActiveMQ"),
        ({"server": "activemq", "exchanges": ("a",)}, "`exchanges` are RabbitMQ's"),
    ],
)
def test_what_does_not_go_together_is_a_problem(table: dict[str, Any], problem: str) -> None:
    [said] = StompDriver.check(StompConfig(**table))

    assert problem in said


def test_a_server_is_asked_for_no_more_than_it_can_do() -> None:
    rabbit, active = StompConfig(), StompConfig(server="activemq")
    with_scheduler = StompConfig(server="activemq", delays=True)

    assert StompDriver.capabilities_of(rabbit) == StompDriver.capabilities
    assert Capability.TTL not in StompDriver.capabilities_of(active)
    assert StompDriver.capabilities_of(with_scheduler) - StompDriver.capabilities_of(active) == {Capability.DELAY}
    assert Capability.MANDATORY not in StompDriver.capabilities


@pytest.mark.parametrize(
    ("config", "queue", "problem"),
    [
        (StompConfig(), Queue(name="q", options=StompOptions(type="quorum", max_priority=3)), "quorum"),
        (StompConfig(), Queue(name="q", durable=False, options=StompOptions(type="quorum")), "quorum"),
        (StompConfig(server="activemq"), Queue(name="q", options=StompOptions()), "options"),
    ],
)
def test_a_queue_that_cannot_be_is_a_problem(config: StompConfig, queue: Queue, problem: str) -> None:
    [said] = StompDriver.check_topology(config, Topology(queues=[queue]))

    assert problem in said


def test_the_passcode_is_not_shown() -> None:
    config = StompConfig(login="shop", passcode=Secret("hunter2"))

    assert link_settings(config).headers["passcode"] == "hunter2"
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(link_settings(config))


@pytest.mark.parametrize(
    ("config", "host"),
    [(StompConfig(), "/"), (StompConfig(host="shop"), "shop"), (StompConfig(server="activemq"), None)],
)
def test_the_header_host_can_be_set(config: StompConfig, host: str | None) -> None:
    assert link_settings(config).headers.get("host") == host


def test_certificates_are_verified_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))

    strict = link_settings(StompConfig(tls=TlsTable(ca=str(authority)))).tls
    loose = link_settings(StompConfig(tls=TlsTable(ca=str(authority), verify=False))).tls

    assert strict is not None
    assert loose is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert loose.verify_mode == ssl.CERT_NONE
    assert StompConfig(tls=TlsTable()).addresses == (("127.0.0.1", 61613),)


def test_a_certificate_that_is_not_there_ends_the_start() -> None:
    with pytest.raises(StartupError, match="nowhere"):
        link_settings(StompConfig(tls=TlsTable(ca="nowhere.pem")))


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (StompConfig(hosts=("queue.example",), passcode=Secret("x")), "in the clear"),
        (StompConfig(tls=TlsTable(verify=False)), "`tls.verify`"),
    ],
)
def test_what_is_dangerous_is_a_warning(config: StompConfig, advice: str) -> None:
    [said] = StompDriver.advise(config, [])

    assert advice in said
