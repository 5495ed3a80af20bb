"""What beginners write into a manifest, and what is said of it."""

from __future__ import annotations

from typing import Final

from ._beginners import MANIFEST, Mistake

MISTAKES: Final = [
    Mistake("no manifest", [(MANIFEST, None, None)], ["kernel.toml: no such file"]),
    Mistake(
        "unquoted string",
        [(MANIFEST, 'plugin = "memory"', "plugin = memory")],
        ['kernel.toml:5: Invalid value (column 10); a text stands in quotes: write plugin = "memory"'],
    ),
    Mistake(
        "python None",
        [(MANIFEST, "timeout = 5.0", "timeout = None")],
        ["kernel.toml:39: Invalid value (column 11); TOML has no None: leave the key out"],
    ),
    Mistake(
        "python True",
        [(MANIFEST, "timeout = 5.0", "essential = True")],
        ["kernel.toml:39: Invalid value (column 13); write essential = true"],
    ),
    Mistake(
        "single colon",
        [(MANIFEST, "timeout = 5.0", "timeout: 5.0")],
        ["kernel.toml:39: Expected '=' after a key in a key/value pair (column 8); write timeout = 5.0"],
    ),
    Mistake(
        "table twice",
        [(MANIFEST, "[workers.mourner]", "[workers.packer]")],
        [
            "kernel.toml:43: Cannot declare ('workers', 'packer') twice (column 16); [workers.packer] is there already in line 36: put the keys together, or give one of the two another name"
        ],
    ),
    Mistake(
        "yaml",
        [
            (
                MANIFEST,
                '[kernel]\nname = "shop"\n\n[drivers.queue]\nplugin = "memory"\n\n[drivers.orders]\nplugin = "publisher"\ndriver = "queue"\nprotocol = "json"\n\n[drivers.desk]\nplugin = "rpc_client"\ndriver = "queue"\nprotocol = "json"\n\n[dispatchers.incoming]\nplugin = "consumer"\ndriver = "queue"\nprotocol = "json"\nqueue = "orders"\nbindings = ["order.*", "stock.*"]\nconcurrency = 4\n\n[dispatchers.clock]\nplugin = "timer"\ninterval = 10.0\n\n[dispatchers.web]\nbind = "127.0.0.1:8080"\n\n[workers.customer]\nuse = "shop:Customer"\nconfig = { skus = ["tea"], every = 0.5 }\n\n[workers.packer]\nuse = "shop:Packer"\ndispatcher = "incoming"\ntimeout = 5.0\nfailure_worker = "mourner"\nretry = { attempts = 4, backoff_initial = 0.5 }\n\n[workers.mourner]\nuse = "shop:mourn"\n\n[workers.reporter]\nuse = "shop:report"\ndispatcher = "clock"\n\n[workers.api]\nuse = "shop:Api"\ndispatcher = "web"\n',
                "kernel:\n  name: shop\n",
            )
        ],
        [
            "kernel.toml:1: Expected '=' after a key in a key/value pair (column 7); a manifest is TOML, and this looks like YAML: a table begins with a line such as [kernel]"
        ],
    ),
    Mistake(
        "manifest is json",
        [
            (
                MANIFEST,
                '[kernel]\nname = "shop"\n\n[drivers.queue]\nplugin = "memory"\n\n[drivers.orders]\nplugin = "publisher"\ndriver = "queue"\nprotocol = "json"\n\n[drivers.desk]\nplugin = "rpc_client"\ndriver = "queue"\nprotocol = "json"\n\n[dispatchers.incoming]\nplugin = "consumer"\ndriver = "queue"\nprotocol = "json"\nqueue = "orders"\nbindings = ["order.*", "stock.*"]\nconcurrency = 4\n\n[dispatchers.clock]\nplugin = "timer"\ninterval = 10.0\n\n[dispatchers.web]\nbind = "127.0.0.1:8080"\n\n[workers.customer]\nuse = "shop:Customer"\nconfig = { skus = ["tea"], every = 0.5 }\n\n[workers.packer]\nuse = "shop:Packer"\ndispatcher = "incoming"\ntimeout = 5.0\nfailure_worker = "mourner"\nretry = { attempts = 4, backoff_initial = 0.5 }\n\n[workers.mourner]\nuse = "shop:mourn"\n\n[workers.reporter]\nuse = "shop:report"\ndispatcher = "clock"\n\n[workers.api]\nuse = "shop:Api"\ndispatcher = "web"\n',
                '{"kernel": {"name": "shop"}}\n',
            )
        ],
        [
            "kernel.toml:1: Invalid statement (column 1); a manifest is TOML, and this looks like JSON: a table begins with a line such as [kernel]"
        ],
    ),
    Mistake(
        "worker singular",
        [(MANIFEST, "[workers.mourner]", "[worker.mourner]")],
        ['kernel.toml:43: [worker]: unknown table; did you mean "workers"? allowed: kernel, logging, ...'],
    ),
    Mistake(
        "misspelt key",
        [(MANIFEST, 'queue = "orders"', 'quue = "orders"')],
        [
            "kernel.toml:17: [dispatchers.incoming].queue: is missing; it must be a string",
            'kernel.toml:21: [dispatchers.incoming].quue: unknown key; did you mean "queue"? allowed: queue, bindings, ...',
        ],
    ),
    Mistake(
        "misspelt plugin",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "memmory"')],
        [
            'kernel.toml:5: [drivers.queue].plugin: no installed distribution provides the driver memmory; did you mean "memory"? installed: ...; the kernel\'s own plugins are installed with: pip install trio-kernel-NAME'
        ],
    ),
    Mistake(
        "plugin not installed",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "kafka"')],
        [
            "kernel.toml:5: [drivers.queue].plugin: no installed distribution provides the driver kafka; installed: ...; the kernel's own plugins are installed with: pip install trio-kernel-NAME"
        ],
    ),
    Mistake(
        "driver unknown",
        [(MANIFEST, 'driver = "queue"\nprotocol = "json"\nqueue', 'driver = "que"\nprotocol = "json"\nqueue')],
        ['kernel.toml:19: [dispatchers.incoming].driver: there is no driver "que"; did you mean "queue"?'],
    ),
    Mistake(
        "driver full id",
        [(MANIFEST, 'driver = "queue"\nprotocol = "json"\nqueue', 'driver = "driver/queue"\nprotocol = "json"\nqueue')],
        ['kernel.toml:19: [dispatchers.incoming].driver: there is no driver "driver/queue"; did you mean "queue"?'],
    ),
    Mistake(
        "protocol missing",
        [(MANIFEST, 'protocol = "json"\nqueue', "queue")],
        [
            'kernel.toml:17: [dispatchers.incoming].protocol: is missing: plugin "consumer" needs a protocol, such as "json"'
        ],
    ),
    Mistake(
        "queue missing",
        [(MANIFEST, 'queue = "orders"\n', "")],
        ["kernel.toml:17: [dispatchers.incoming].queue: is missing; it must be a string"],
    ),
    Mistake(
        "bindings is a string",
        [(MANIFEST, 'bindings = ["order.*", "stock.*"]', 'bindings = "order.*"')],
        ['kernel.toml:22: [dispatchers.incoming].bindings: must be an array, got "order.*"; write ["order.*"]'],
    ),
    Mistake(
        "string for number",
        [(MANIFEST, "concurrency = 4", 'concurrency = "4"')],
        ['kernel.toml:23: [dispatchers.incoming].concurrency: must be an integer, got "4"; write 4, without quotes'],
    ),
    Mistake(
        "duration with unit",
        [(MANIFEST, "timeout = 5.0", 'timeout = "5s"')],
        ['kernel.toml:39: [workers.packer].timeout: must be a number, got "5s"; write seconds: 5'],
    ),
    Mistake(
        "zero concurrency",
        [(MANIFEST, "concurrency = 4", "concurrency = 0")],
        ["kernel.toml:23: [dispatchers.incoming].concurrency: must be from 1 to 10000, got 0"],
    ),
    Mistake(
        "use file path",
        [(MANIFEST, 'use = "shop:Packer"', 'use = "shop.py:Packer"')],
        ['kernel.toml:37: [workers.packer].use: there is no module "shop.py"; did you mean "shop"?'],
    ),
    Mistake(
        "use dotted",
        [(MANIFEST, 'use = "shop:Packer"', 'use = "shop.Packer"')],
        [
            'kernel.toml:37: [workers.packer].use: must be "module:Name", or the name of a worker that is installed; did you mean "shop:Packer"?'
        ],
    ),
    Mistake(
        "use misspelt class",
        [(MANIFEST, 'use = "shop:Packer"', 'use = "shop:Paker"')],
        ['kernel.toml:37: [workers.packer].use: "shop" (from shop.py) has no "Paker"; did you mean "Packer"?'],
    ),
    Mistake(
        "use misspelt module",
        [(MANIFEST, 'use = "shop:Packer"', 'use = "shopp:Packer"')],
        ['kernel.toml:37: [workers.packer].use: there is no module "shopp"; did you mean "shop"?'],
    ),
    Mistake(
        "dispatcher missing",
        [(MANIFEST, 'dispatcher = "incoming"\n', "")],
        [
            'kernel.toml:17: [dispatchers.incoming]: has no worker: write dispatcher = "incoming" in the table of one',
            "kernel.toml:37: [workers.packer].use: Packer is marked with @handles, but the worker has no dispatcher, so it would never be called",
            "kernel.toml:38: [workers.packer].timeout: has no effect: the worker has no dispatcher, so it handles nothing",
            "kernel.toml:39: [workers.packer].failure_worker: has no effect: the worker has no dispatcher, so it handles nothing",
            "kernel.toml:40: [workers.packer.retry]: has no effect: the worker has no dispatcher, so it handles nothing",
        ],
    ),
    Mistake(
        "dispatcher misspelt",
        [(MANIFEST, 'dispatcher = "incoming"', 'dispatcher = "incomming"')],
        [
            'kernel.toml:17: [dispatchers.incoming]: has no worker: write dispatcher = "incoming" in the table of one',
            'kernel.toml:38: [workers.packer].dispatcher: there is no dispatcher "incomming"; did you mean "incoming"?',
        ],
    ),
    Mistake(
        "dispatcher without worker",
        [(MANIFEST, '[workers.reporter]\nuse = "shop:report"\ndispatcher = "clock"\n', "")],
        ['kernel.toml:25: [dispatchers.clock]: has no worker: write dispatcher = "clock" in the table of one'],
    ),
    Mistake(
        "failure worker misspelt",
        [(MANIFEST, 'failure_worker = "mourner"', 'failure_worker = "mournr"')],
        [
            'kernel.toml:40: [workers.packer].failure_worker: there is no worker "mournr"; did you mean "mourner"?',
            'kernel.toml:44: [workers.mourner].use: parameter "failure" of mourn has no default and is neither "config" nor a driver; to be called with messages, it needs a dispatcher in its table, or to be the failure_worker of another',
        ],
    ),
    Mistake(
        "two workers one dispatcher same subject",
        [
            (
                MANIFEST,
                "[workers.mourner]",
                '[workers.packer2]\nuse = "shop:Packer"\ndispatcher = "incoming"\n\n[workers.mourner]',
            )
        ],
        [
            'kernel.toml:44: [workers.packer2].use: "order.created" goes to worker/packer already; a dispatcher gives a subject to one worker, or with fan_out = true to all',
            'kernel.toml:44: [workers.packer2].use: "stock.packed" goes to worker/packer already; a dispatcher gives a subject to one worker, or with fan_out = true to all',
        ],
    ),
    Mistake(
        "config missing",
        [(MANIFEST, 'config = { skus = ["tea"], every = 0.5 }\n', "")],
        ["kernel.toml:32: [workers.customer].config.skus: is missing; it must be an array"],
    ),
    Mistake(
        "config misspelt",
        [(MANIFEST, "every = 0.5", "evry = 0.5")],
        ['kernel.toml:34: [workers.customer.config].evry: unknown key; did you mean "every"? allowed: skus, every'],
    ),
    Mistake(
        "config wrong type",
        [(MANIFEST, 'skus = ["tea"]', 'skus = "tea"')],
        ['kernel.toml:34: [workers.customer.config].skus: must be an array, got "tea"; write ["tea"]'],
    ),
    Mistake(
        "config unasked",
        [(MANIFEST, 'failure_worker = "mourner"', "config = { a = 1 }")],
        [
            'kernel.toml:40: [workers.packer.config]: Packer has no parameter "config" that could take it',
            'kernel.toml:44: [workers.mourner].use: parameter "failure" of mourn has no default and is neither "config" nor a driver; to be called with messages, it needs a dispatcher in its table, or to be the failure_worker of another',
        ],
    ),
    Mistake(
        "retry typo",
        [(MANIFEST, "attempts = 4", "retries = 4")],
        [
            'kernel.toml:41: [workers.packer.retry].retries: unknown key; did you mean "attempts"? allowed: backoff_initial, backoff_factor, ...'
        ],
    ),
    Mistake(
        "retry number",
        [(MANIFEST, "retry = { attempts = 4, backoff_initial = 0.5 }", "retry = 4")],
        ["kernel.toml:41: [workers.packer].retry: must be a table, got 4; a table is written { key = value }"],
    ),
    Mistake(
        "stop budget",
        [(MANIFEST, 'name = "shop"\n', 'name = "shop"\ngrace_period = 5.0\n')],
        [
            "kernel.toml:1: [kernel].drain_timeout: must be less than grace_period = 5.0, of which it is a part, got 15.0"
        ],
    ),
    Mistake(
        "name with space",
        [(MANIFEST, 'name = "shop"', 'name = "my shop"')],
        [
            'kernel.toml:2: [kernel].name: must be at most 64 of A-Z, a-z, 0-9, _ and -, and start with a letter; write "my-shop"'
        ],
    ),
    Mistake(
        "component with dash",
        [(MANIFEST, "[workers.mourner]", "[workers.the-mourner]")],
        [
            'kernel.toml:43: [workers.the-mourner]: a name must be at most 64 of a-z, 0-9 and _, and start with a letter; write "the_mourner"'
        ],
    ),
    Mistake(
        "env missing",
        [(MANIFEST, 'queue = "orders"', 'queue = "${QUEUE}"')],
        ["kernel.toml:21: [dispatchers.incoming].queue: needs the environment variable QUEUE, which is not set"],
    ),
    Mistake(
        "password as string",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "amqp"\nhosts = ["rabbit"]\npassword = "hunter2"')],
        [
            'kernel.toml:7: [drivers.queue].password: must be a secret: write { env = "NAME" } or { file = "/path/to/it" }'
        ],
    ),
    Mistake(
        "amqp url",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "amqp"\nurl = "amqp://guest:guest@localhost/"')],
        ['kernel.toml:6: [drivers.queue].url: must be a secret: write { env = "NAME" } or { file = "/path/to/it" }'],
    ),
    Mistake(
        "amqp url as host",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "amqp"\nhosts = ["amqp://localhost"]')],
        [
            'kernel.toml:6: [drivers.queue].hosts: "amqp://localhost" must be "host:port"; a port is a number from 1 to 65535'
        ],
    ),
    Mistake(
        "host no list",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "amqp"\nhosts = "localhost"')],
        ['kernel.toml:6: [drivers.queue].hosts: must be an array, got "localhost"; write ["localhost"]'],
    ),
    Mistake(
        "bind all",
        [(MANIFEST, 'bind = "127.0.0.1:8080"', 'bind = "0.0.0.0:8080"')],
        [
            'kernel.toml:29: [dispatchers.web]: bind: "0.0.0.0:8080" would speak plaintext that others can read: add a "tls" table, or set insecure = true'
        ],
    ),
    Mistake(
        "port key",
        [(MANIFEST, 'bind = "127.0.0.1:8080"', 'host = "127.0.0.1"\nport = 8080')],
        [
            'kernel.toml:30: [dispatchers.web].host: unknown key; did you mean "bind"? allowed: bind, reuse_port, ...',
            'kernel.toml:31: [dispatchers.web].port: unknown key; did you mean "bind"? allowed: bind, reuse_port, ...',
        ],
    ),
    Mistake(
        "timer both",
        [(MANIFEST, "interval = 10.0", 'interval = 10.0\ncron = "* * * * *"')],
        ["kernel.toml:25: [dispatchers.clock]: give exactly one of interval and cron"],
    ),
    Mistake(
        "timer cron broken",
        [(MANIFEST, "interval = 10.0", 'cron = "every day"')],
        [
            "kernel.toml:27: [dispatchers.clock].cron: cron 'every day' must have five fields, minute hour day-of-month month day-of-week, or six: second first"
        ],
    ),
    Mistake(
        "sqlite path missing",
        [(MANIFEST, 'plugin = "memory"', 'plugin = "sqlite"')],
        ["kernel.toml:4: [drivers.queue].path: is missing; it must be a string"],
    ),
    Mistake(
        "capability",
        [(MANIFEST, 'queue = "orders"', 'queue = "orders"\ndurable = true')],
        [
            'kernel.toml:19: [dispatchers.incoming].driver: this configuration needs "durable", which driver/queue (plugin "memory") cannot do; leave out what needs it, or take another plugin'
        ],
    ),
    Mistake(
        "web worker is no app",
        [(MANIFEST, 'use = "shop:Api"', 'use = "shop:Packer"')],
        [
            "kernel.toml:51: [workers.api].use: Packer is marked with @handles, but the worker has a dispatcher that delivers no messages, so it would never be called",
            "kernel.toml:51: [workers.api].use: Packer is no ASGI application and has none: make it callable as (scope, receive, send), or give it an attribute or property `app` that is, or a `router` of FastAPI",
        ],
    ),
    Mistake(
        "worker uses dispatchers list",
        [(MANIFEST, 'dispatcher = "incoming"', 'dispatcher = ["incoming"]')],
        ["kernel.toml:38: [workers.packer].dispatcher: must be a string, got an array"],
    ),
    Mistake(
        "essential string",
        [(MANIFEST, "timeout = 5.0", 'essential = "no"')],
        ['kernel.toml:39: [workers.packer].essential: must be true or false, got "no"; write false, without quotes'],
    ),
    Mistake(
        "restart policy",
        [(MANIFEST, "timeout = 5.0", 'restart = { policy = "sometimes" }')],
        ['kernel.toml:39: [workers.packer.restart].policy: must be "always", "on_failure" or "never", got "sometimes"'],
    ),
]
