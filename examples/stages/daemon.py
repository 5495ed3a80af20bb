"""The daemon of systemPY's README, as a worker."""

from __future__ import annotations

import trio

from kernel import at


class ExampleDaemon:
    """Says at which stage it is. Before `start` and after `stop` there is no object, only the class."""

    @classmethod
    @at("init")
    def on_init(cls) -> None:
        """Before the event loop, once."""
        say("ON INIT")

    @classmethod
    @at("before_start")
    def pre_startup(cls) -> None:
        """Before anything is open."""
        say("\tPRE STARTUP")

    async def __aenter__(self) -> None:
        """Be opened: the stage `start`."""
        await trio.lowlevel.checkpoint()
        say("\t\tON STARTUP")

    @at("before_post_startup")
    def before_post_startup(self) -> None:
        """When everything is ready."""
        say("\t\t\tCUSTOM BEFORE POST STARTUP")

    @at("after_start")
    async def post_startup(self) -> None:
        """When everything is ready, and nobody has been told."""
        await trio.lowlevel.checkpoint()
        say("\t\t\tPOST STARTUP")

    async def run(self) -> None:
        """Go on until the stop."""
        await trio.sleep_forever()

    @at("before_pre_shutdown")
    async def before_pre_shutdown(self) -> None:
        """When a stop was asked for."""
        await trio.lowlevel.checkpoint()
        say("\t\t\tCUSTOM BEFORE PRE SHUTDOWN")

    @at("before_stop")
    async def pre_shutdown(self) -> None:
        """When a stop was asked for, and everything is still open."""
        await trio.lowlevel.checkpoint()
        say("\t\t\tPRE SHUTDOWN")

    async def __aexit__(self, *_: object) -> None:  # noqa: ASYNC910  it has nothing to wait for
        """Be closed: the stage `stop`."""
        say("\t\tON SHUTDOWN")

    @classmethod
    @at("after_stop")
    def post_shutdown(cls) -> None:
        """When nothing is open."""
        say("\tPOST SHUTDOWN")

    @classmethod
    @at("also_after_post_shutdown")
    def also_after_post_shutdown(cls) -> None:
        """After that."""
        say("\tALSO AFTER POST SHUTDOWN")

    @classmethod
    @at("after_also_after_post_shutdown")
    def after_also_after_post_shutdown(cls) -> None:
        """After that, too."""
        say("\tAFTER ALSO AFTER POST SHUTDOWN")

    @classmethod
    @at("exit")
    def on_exit(cls) -> None:
        """After the event loop, once."""
        say("ON EXIT")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201  it is what the example is for
