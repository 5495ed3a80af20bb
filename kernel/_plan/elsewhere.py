"""Workers whose handlers are called outside of the event loop: whether they fit the executor that `runs_in` names."""

from __future__ import annotations

from .._core.executor import Executor, PlainWorker
from .._core.words import listed
from .._manifest.tables import Report
from .signature import Shape


def executor_of(driver: str, provides: type[object], report: Report) -> type[Executor] | None:
    """Return what calls the handlers of a worker, if the resource of that driver is such a thing."""
    if issubclass(provides, Executor):
        return provides
    report(("runs_in",), f"driver/{driver} calls no handlers; name one such as a thread_pool or a process_pool")
    return None


def check_elsewhere(shape: Shape, executor: type[Executor], report: Report) -> None:
    """Report what keeps the handlers of a worker from being called by an executor."""
    for name, has in (("run", shape.runs), ("__aenter__", shape.is_context)):
        if has:
            report(
                ("use",), f"{shape.label} has {name}, which is for the event loop; with runs_in it has handlers only"
            )
    if executor.crosses_processes:
        _check_crossing(shape, report)
    injection = shape.injection
    is_wrong = "<locals>" in shape.label or (injection.config_parameter is not None and injection.config is None)
    if not is_wrong:  # else that has been told
        _ask(shape, executor, report)


def _check_crossing(shape: Shape, report: Report) -> None:
    where = "which cannot go to another process, where runs_in calls its handlers"
    given = [*shape.injection.drivers, *shape.injection.asked]
    if given:
        report(("use",), f"{shape.label} asks for {listed(given)}, {where}")
    if "<locals>" in shape.label:
        report(("use",), f"{shape.label} must stand at the top of its module, so that other processes can import it")
    for handler in shape.handlers:
        label = f"{shape.label}.{handler.method}" if handler.method else shape.label
        for parameter in filter(None, (handler.delivery_parameter, handler.batch_parameter)):
            report(("use",), f'{label} asks for "{parameter}", {where}')


def _ask(shape: Shape, executor: type[Executor], report: Report) -> None:
    parameter = shape.injection.config_parameter
    arguments = {} if parameter is None else {parameter: shape.injection.config}
    worker = PlainWorker(id="", use=shape.use, is_function=shape.is_function, arguments=arguments)
    if refusal := executor.refusal(worker):
        report(("use",) if parameter is None else (parameter,), f"{shape.label} {refusal}")
