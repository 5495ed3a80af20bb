"""What beginners write into a worker's module, and what is said of it."""

from __future__ import annotations

from typing import Final

from ._beginners import CODE, MANIFEST, QUEUE, Mistake

MISTAKES: Final = [
    Mistake(
        "use instance",
        [
            (MANIFEST, 'use = "shop:Packer"', 'use = "shop:packer"'),
            (CODE, "async def mourn", "packer = Packer()\n\n\nasync def mourn"),
        ],
        ["kernel.toml:37: [workers.packer].use: must name a class or an async function; this is an instance of Packer"],
    ),
    Mistake(
        "module named like library",
        [(MANIFEST, 'use = "shop:report"', 'use = "queue:report"'), (QUEUE, None, "async def report(tick): ...\n")],
        [
            'kernel.toml:47: [workers.reporter].use: "queue" is the name of a module of Python itself; rename the one beside the manifest'
        ],
    ),
    Mistake(
        "syntax error in worker",
        [(CODE, "class Packer:", "class Packer")],
        ["kernel.toml:33: [workers.customer].use: cannot import \"shop\": shop.py:30: expected ':'"],
    ),
    Mistake(
        "import missing lib",
        [(CODE, "import trio\n", "import trio\nimport celery\n")],
        [
            'kernel.toml:33: [workers.customer].use: cannot import "shop": shop.py:3: ModuleNotFoundError: No module named \'celery\'; is what has "celery" installed here?'
        ],
    ),
    Mistake(
        "name error at import",
        [(CODE, "from kernel import handles\n", "")],
        [
            "kernel.toml:33: [workers.customer].use: cannot import \"shop\": shop.py:30: NameError: name 'handles' is not defined"
        ],
    ),
    Mistake(
        "sync handler",
        [(CODE, "    async def pack", "    def pack")],
        ['kernel.toml:37: [workers.packer].use: Packer.pack handles messages, so it must be written "async def"; ...'],
    ),
    Mistake(
        "sync run",
        [
            (
                CODE,
                '    async def run(self):\n        while True:\n            await self.orders.publish("order.created", {"sku": "tea"})\n            await trio.sleep(self.config.every)',
                "    def run(self):\n        pass",
            )
        ],
        [
            'kernel.toml:33: [workers.customer].use: Customer.run is the loop of the worker, so it must be written "async def"'
        ],
    ),
    Mistake(
        "handles without call",
        [(CODE, '@handles("order.created")', "@handles")],
        [
            'kernel.toml:33: [workers.customer].use: cannot import "shop": shop.py:31: TypeError: @handles needs the subjects in parentheses, such as @handles("order.created")'
        ],
    ),
    Mistake(
        "handles missing",
        [(CODE, '    @handles("order.created")\n', ""), (CODE, '    @handles("stock.packed")\n', "")],
        [
            'kernel.toml:37: [workers.packer].use: Packer handles nothing: mark a method with @handles("..."), or write async __call__'
        ],
    ),
    Mistake(
        "run with argument",
        [(CODE, "async def run(self):", "async def run(self, nursery):")],
        [
            "kernel.toml:33: [workers.customer].use: Customer.run is called without arguments, but needs nursery; ask in __init__"
        ],
    ),
    Mistake(
        "handler without payload",
        [(CODE, "async def pack(self, order: Order):", "async def pack(self):")],
        ["kernel.toml:37: [workers.packer].use: Packer.pack must take the payload as its first parameter, by position"],
    ),
    Mistake(
        "handler two params",
        [(CODE, "async def pack(self, order: Order):", "async def pack(self, order: Order, stock):")],
        [
            'kernel.toml:37: [workers.packer].use: parameter "stock" of Packer.pack has no default; a handler is given its payload and, if it asks, "envelope: Envelope" and "delivery: Delivery"; the rest goes into __init__'
        ],
    ),
    Mistake(
        "annotation string undefined",
        [(CODE, "async def pack(self, order: Order):", 'async def pack(self, order: "Ordr"):')],
        [
            "kernel.toml:37: [workers.packer].use: the annotation of \"order\" of Packer.pack cannot be resolved: name 'Ordr' is not defined; import it outside TYPE_CHECKING"
        ],
    ),
    Mistake(
        "same subject twice",
        [(CODE, '@handles("stock.packed")', '@handles("order.created")')],
        ['kernel.toml:37: [workers.packer].use: "order.created" is handled twice: by Packer.pack and Packer.count'],
    ),
    Mistake(
        "constructor unknown driver",
        [(CODE, "def __init__(self, orders, config", "def __init__(self, publisher, config")],
        [
            'kernel.toml:33: [workers.customer].use: parameter "publisher" of Customer has no default and is neither "config" nor a driver; there are: queue, orders, desk'
        ],
    ),
    Mistake(
        "constructor misspelt driver",
        [(CODE, "def __init__(self, orders, config", "def __init__(self, order, config")],
        [
            'kernel.toml:33: [workers.customer].use: parameter "order" of Customer has no default and is neither "config" nor a driver; did you mean "orders"?'
        ],
    ),
    Mistake(
        "constructor wrong type",
        [(CODE, "def __init__(self, orders, config", "def __init__(self, orders: int, config")],
        [
            'kernel.toml:33: [workers.customer].use: parameter "orders" of Customer wants int, but driver/orders provides Publisher'
        ],
    ),
    Mistake(
        "asyncio imported",
        [(CODE, "import trio\n", "import asyncio\n\nimport trio\n")],
        [
            "kernel.toml: ok: 11 components; ...",
            "warning: kernel.toml:33: [workers.customer].use: its module imports asyncio, and services run on trio: what waits by asyncio fails",
        ],
    ),
]
