from __future__ import annotations

import re
import ssl
import subprocess
import tomllib
from pathlib import Path
from typing import Any, cast

import attrs
import jsonschema
import pytest
from kernel_amqp import AmqpConfig, AmqpOptions
from kernel_amqp._config import TlsTable
from kernel_amqp._settings import tls_context
from kernel_amqp._tables import QueueTable
from kernel_amqp.broker.naming import Names

from kernel import Secret
from kernel._cli.schema import manifest_schema
from kernel._manifest.manifest import load
from kernel._manifest.registry import discover
from kernel._plan.plan import Plan, resolve
from kernel.abc import Queue, Topology, parse_host
from kernel.errors import ConflictError, PlanError, StartupError

TLS = TlsTable(certificate="/c.pem")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rabbit", ("rabbit", 5672)),
        ("rabbit:1", ("rabbit", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:5673", ("::1", 5673)),
        ("[::1]", ("::1", 5672)),
    ],
)
def test_hosts_are_read(text: str, wanted: tuple[str, int]) -> None:
    assert parse_host(text, default_port=5672) == wanted


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:0", "a:65536", "a:x", "::1", "amqp://a:1", "u@a:1", "a b:1", "[a]:1"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_host(text, default_port=5672)


def test_tls_has_a_port_of_its_own() -> None:
    assert AmqpConfig(hosts=("a", "b:1"), tls=TlsTable()).addresses == (("a", 5671), ("b", 1))


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "[::1]", "127.9.9.9"])
def test_guest_needs_no_password_on_this_machine(host: str) -> None:
    config = AmqpConfig(hosts=(host,))

    assert (list(config.problems()), config.sasl_response()) == ([], "\0guest\0guest")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (AmqpConfig(hosts=("rabbit",)), "`password` is missing"),
        (AmqpConfig(hosts=("127.0.0.1", "rabbit")), "`password` is missing"),
        (AmqpConfig(username="me"), "`password` is missing"),
        (AmqpConfig(mechanism="EXTERNAL"), "needs a `certificate`"),
        (AmqpConfig(mechanism="EXTERNAL", tls=TlsTable()), "needs a `certificate`"),
        (AmqpConfig(mechanism="EXTERNAL", tls=TLS, password=Secret("x")), "has no effect"),
        (AmqpConfig(backoff_initial=5.0, backoff_max=1.0), "backoff_max"),
    ],
)
def test_what_does_not_go_together_is_a_problem(config: AmqpConfig, problem: str) -> None:
    (found,) = config.problems()

    assert problem in found


def test_a_certificate_is_enough() -> None:
    config = AmqpConfig(hosts=("rabbit",), mechanism="EXTERNAL", tls=TLS)

    assert (list(config.problems()), config.sasl_response()) == ([], "")


def test_a_password_is_never_shown() -> None:
    assert "geheim" not in repr(AmqpConfig(password=Secret("geheim")))


def test_arguments_that_have_a_key_are_refused() -> None:
    with pytest.raises(ValueError, match="the key `ttl` says that"):
        AmqpOptions(arguments={"x-message-ttl": 5})


# --- the manifest ---------------------------------------------------------------------------------------------------

MANIFEST = """
[kernel]
name = "orders"

[drivers.rabbit]
plugin = "amqp"
hosts = ["rabbit-1:5671", "rabbit-2"]
virtual_host = "shop"
username = "orders"
password = { env = "RABBIT_PASSWORD" }
heartbeat = 5

[drivers.rabbit.tls]
ca = "/etc/ssl/rabbit.pem"

[drivers.rabbit.exchanges.events]
type = "topic"
arguments = { alternate-exchange = "lost" }

[drivers.rabbit.exchanges.lost]
type = "fanout"
adopt = true
bindings = [{ exchange = "events", pattern = "lost.#" }]

[drivers.rabbit.queues.lost]
type = "quorum"
max_length = 1000
overflow = "drop_oldest"
bindings = [{ exchange = "lost" }]

[dispatchers.orders]
plugin = "consumer"
driver = "rabbit"
protocol = "json"
queue = "orders"
bindings = ["order.*"]
concurrency = 20

[dispatchers.orders.options]
max_priority = 0
arguments = { x-queue-mode = "lazy" }

[workers.fulfil]
use = "amqp_manifest_workers:handle"
dispatcher = "orders"
"""
WORKERS = """
from kernel import handles


@handles("order.*")
async def handle(order: dict[str, object]) -> None: ...
"""


def check(tmp_path: Path, text: str) -> Plan:
    (tmp_path / "amqp_manifest_workers.py").write_text(WORKERS, encoding="utf-8")
    path = tmp_path / "kernel.toml"
    path.write_text(text, encoding="utf-8")
    return resolve(load(path, environ={"RABBIT_PASSWORD": "geheim"}), discover())


def config_of(plan: Plan, component: str) -> Any:
    return cast("Any", plan.components[component]).config


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        check(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_a_manifest_says_all_of_it(tmp_path: Path) -> None:
    plan = check(tmp_path, MANIFEST)
    config = cast("AmqpConfig", config_of(plan, "driver/rabbit"))

    assert config.addresses == (("rabbit-1", 5671), ("rabbit-2", 5671))
    assert config.exchanges["lost"].bindings[0].pattern == "lost.#"
    assert config.queues["lost"].type == "quorum"
    options = config_of(plan, "dispatcher/orders").options
    assert options == AmqpOptions(max_priority=0, arguments={"x-queue-mode": "lazy"})
    assert "geheim" not in repr(plan)


@pytest.mark.parametrize(
    ("old", "new", "at", "text"),
    [
        ("heartbeat = 5", "heartbeat = 0", "[drivers.rabbit].heartbeat", "must be at least 1"),
        ('"rabbit-2"]', '"rabbit-2:x"]', "[drivers.rabbit].hosts", "a port is a number"),
        ("password = {", "#", "[drivers.rabbit]", "`password` is missing"),
        (
            '"RABBIT_PASSWORD" }',
            '"RABBIT_PASSWORD" }\nmechanism = "GSSAPI"',
            "[drivers.rabbit].mechanism",
            "EXTERNAL",
        ),
        ('type = "fanout"', 'typ = "fanout"', "[drivers.rabbit.exchanges.lost].typ", "did you mean"),
        ("max_length = 1000", "auto_delete = true", "[drivers.rabbit.queues.lost].type", "neither auto_delete"),
        ('type = "quorum"', "delivery_limit = 3", "[drivers.rabbit.queues.lost].delivery_limit", "is for queues of"),
        ("max_length = 1000", "max_length = 0", "[drivers.rabbit.queues.lost].max_length", "must be at least 1"),
        ("max_priority = 0", "max_priority = 256", "[dispatchers.orders.options].max_priority", "must be at most 255"),
        ("max_priority = 0", "max_prio = 0", "[dispatchers.orders.options].max_prio", "did you mean"),
        ("concurrency = 20", "deduplication_window = 5", "[dispatchers.orders].driver", "deduplication"),
    ],
)
def test_a_wrong_manifest_is_one_clear_error(tmp_path: Path, old: str, new: str, at: str, text: str) -> None:
    assert old in MANIFEST
    wrong = MANIFEST.replace(old, new, 1)
    (problem,) = problems(tmp_path, wrong)
    header, _, key = at.partition("].")
    lines = wrong.splitlines()
    line = lines.index(header.removesuffix("]") + "]") + 1
    if key:
        line += next(number for number, text in enumerate(lines[line:], 1) if text.startswith(key))

    assert problem.startswith(f"kernel.toml:{line}: {at}")
    assert text in problem


def test_an_argument_that_has_a_key_is_told_where_it_stands(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, MANIFEST.replace("x-queue-mode", "x-expires", 1))

    assert problem.startswith("kernel.toml:41: [dispatchers.orders.options.arguments]: must not have x-expires")


def warnings(plan: Plan) -> list[str]:
    return [str(warning).split(": ", 1)[1] for warning in plan.warnings]


def test_what_may_not_be_meant_is_a_warning(tmp_path: Path) -> None:
    text = MANIFEST.replace("max_priority = 0\n", "", 1)
    careless = text.replace('ca = "/etc/ssl/rabbit.pem"', "verify = false")
    clear = text.replace("[drivers.rabbit.tls]", "").replace('ca = "/etc/ssl/rabbit.pem"', "")

    assert warnings(check(tmp_path, MANIFEST.replace("max_priority = 0", 'type = "quorum"', 1))) == []
    (one,) = warnings(check(tmp_path, text))
    assert 'queue "orders": `type` is not said' in one
    assert any("`tls.verify` is false" in each for each in warnings(check(tmp_path, careless)))
    assert any("in the clear to rabbit-1, rabbit-2" in each for each in warnings(check(tmp_path, clear)))


def test_what_cannot_be_declared_is_found_before_the_start(tmp_path: Path) -> None:
    text = MANIFEST.replace("max_priority = 0", 'type = "quorum"', 1)
    (transient,) = problems(tmp_path, text.replace("concurrency = 20", "durable = false"))
    prefixed = text.replace("heartbeat = 5", f'prefix = "{"p" * 100}"').replace(
        'queue = "orders"', f'queue = "{"q" * 160}"'
    )
    (long,) = problems(tmp_path, prefixed)

    assert 'queue "orders" cannot be of `type = "quorum"`' in transient
    assert "has 265 bytes with `prefix`" in long


def test_the_schema_knows_it() -> None:
    schema, _ = manifest_schema(discover())
    checks = jsonschema.Draft202012Validator(schema)

    assert [error.message for error in checks.iter_errors(tomllib.loads(MANIFEST))] == []
    for old, new in (
        ("heartbeat = 5", "heartbeat = 0"),
        ('type = "fanout"', 'typ = "fanout"'),
        ('type = "quorum"', 'type = "mirrored"'),
    ):
        assert not checks.is_valid(tomllib.loads(MANIFEST.replace(old, new, 1))), new


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_a_broker_must_prove_who_it_is_unless_told_otherwise() -> None:
    careful, careless = tls_context(TlsTable()), tls_context(TlsTable(verify=False))

    assert (careful.verify_mode, careful.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (careless.verify_mode, careless.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("key", ["ca", "certificate"])
def test_a_file_that_is_no_certificate_is_named(key: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate", encoding="utf-8")
    for path in (wrong, tmp_path / "missing.pem"):
        with pytest.raises(StartupError, match=re.escape(str(path))):
            tls_context(TlsTable(**{key: str(path)}))


# --- a URL ----------------------------------------------------------------------------------------------------------


def by_url(url: str, **others: Any) -> AmqpConfig:
    return AmqpConfig(url=Secret(url), **others).without_url()


def test_a_url_says_what_the_keys_say() -> None:
    config = by_url(
        "amqps://orders:ge%3Aheim%2F@rabbit-1:5999/shop%2Feu?heartbeat=5&connection_timeout=2500&cacertfile=/ca.pem"
    )

    assert (config.addresses, config.virtual_host) == ((("rabbit-1", 5999),), "shop/eu")
    assert config.sasl_response() == "\0orders\0ge:heim/"
    assert (config.heartbeat, config.connect_timeout) == (5.0, 2.5)
    assert config.tls == TlsTable(ca="/ca.pem")
    assert list(AmqpConfig(url=Secret("amqps://a:b@c/d")).problems()) == []


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://localhost", ((("localhost", 5672),), "/", None)),
        ("amqp://127.0.0.1/", ((("127.0.0.1", 5672),), "/", None)),
        ("amqp://[::1]:1/x", ((("::1", 1),), "x", None)),
        ("amqps://a:b@c/%2F", ((("c", 5671),), "/", TlsTable())),
        ("amqps://a:b@c?verify=verify_none", ((("c", 5671),), "/", TlsTable(verify=False))),
    ],
)
def test_what_a_url_leaves_out_is_as_usual(url: str, wanted: tuple[object, ...]) -> None:
    config = by_url(url)

    assert (config.addresses, config.virtual_host, config.tls) == wanted


@pytest.mark.parametrize(
    "url",
    [
        "rabbit",
        "http://a",
        "amqp://",
        "amqp://a:b",
        "amqp://u:geheim@a/b/c",
        "amqp://u:geheim@a?heartbet=1",
        "amqp://u:geheim@a?heartbeat=x",
    ],
)
def test_what_is_no_url_of_a_broker_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="'url' must be the URL of a broker") as caught:
        AmqpConfig(url=Secret(url))

    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (AmqpConfig(url=Secret("amqp://a:b@c"), hosts=("d",)), "`hosts` does not go with `url`"),
        (AmqpConfig(url=Secret("amqp://rabbit")), "`password` is missing"),
        (AmqpConfig(url=Secret("amqp://a:b@c?heartbeat=0")), "`url`: 'heartbeat' must be >= 1"),
    ],
)
def test_what_does_not_go_with_a_url_is_a_problem(config: AmqpConfig, problem: str) -> None:
    (found,) = config.problems()

    assert found.startswith(problem)


def test_a_password_and_a_url_are_read_anew() -> None:
    texts = {"password": "one", "url": "amqp://a:one@c"}
    password, url = (Secret(texts[key], again=lambda key=key: texts[key]) for key in ("password", "url"))  # type: ignore[misc]
    plain, whole = AmqpConfig(username="a", password=password), AmqpConfig(url=url)
    texts |= {"password": "two", "url": "amqp://a:two@c"}

    assert [config.without_url().sasl_response() for config in (plain, whole)] == ["\0a\0two"] * 2


def test_an_encrypted_key_needs_its_password_and_asks_nobody(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=x", "-passout", "pass:geheim"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    table = TlsTable(certificate=str(certificate), key=str(key))

    tls_context(attrs.evolve(table, key_password=Secret("geheim")))
    with pytest.raises(StartupError, match="give `key_password`"):
        tls_context(table)
    with pytest.raises(StartupError, match="cannot be used"):
        tls_context(attrs.evolve(table, key_password=Secret("wrong")))


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_table_whose_name_is_too_long_with_the_prefix_is_refused() -> None:
    name = "q" * 250
    tables = {name: QueueTable()}

    assert AmqpConfig(queues=tables).queues == tables
    with pytest.raises(ValueError, match=r"'queues' must have names of at most 255 bytes .* has 260"):
        AmqpConfig(prefix="x" * 10, queues=tables)


def test_a_name_that_is_too_long_with_the_prefix_is_told_before_the_broker_is_asked() -> None:
    with pytest.raises(ConflictError, match=r"has 260 bytes with `prefix`: at most 255 are possible"):
        Names("x" * 10).of_topology(Topology(queues=[Queue(name="q" * 250)]))
