"""What a call takes and gives, by the annotations of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import final, get_type_hints

import attrs

from kernel import payload_converter
from kernel.errors import ArgumentsError, ConversionError

_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@final
@attrs.frozen(eq=False, repr=False)
class Contract:
    """Checks arguments and results. What has no annotation may be anything."""

    signature: inspect.Signature
    _parameters: Mapping[str, Callable[[object], object]]
    _result: Callable[[object], object]

    @classmethod
    def of(cls, function: Callable[..., object]) -> Contract:
        """Return the contract that a function's annotations are.

        Raises:
            TypeError: if it has no signature, or an annotation that nothing can be converted to.
        """
        try:
            signature = inspect.signature(function)
            hints = get_type_hints(inspect.unwrap(function))
        except (ValueError, NameError) as error:
            raise TypeError(f"its signature cannot be read: {error}") from error
        single = [one.name for one in signature.parameters.values() if one.kind not in _MANY]
        return cls(
            signature,
            {name: payload_converter(hints[name]) for name in single if name in hints},
            payload_converter(hints.get("return", object)),
        )

    def bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """Return converted arguments.

        Raises:
            ArgumentsError: with everything that is wrong.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError([str(error)]) from None
        problems: list[str] = []
        for name, convert in self._parameters.items():
            if name in bound.arguments:
                try:
                    bound.arguments[name] = convert(bound.arguments[name])
                except ConversionError as error:
                    problems += [f"{name}: {problem}" for problem in error.problems]
        if problems:
            raise ArgumentsError(problems)
        return bound

    def result(self, value: object) -> object:
        """Return a converted result.

        Raises:
            ConversionError: if it is not what is promised.
        """
        try:
            return self._result(value)
        except ConversionError as error:
            problems = [f"result: {problem}" for problem in error.problems]
        raise ConversionError(problems)
