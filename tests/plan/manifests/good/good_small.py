"""The worker of the smallest manifest."""


async def sweep() -> None: ...
