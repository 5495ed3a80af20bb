"""Annotation -> node: the closed list of types that this package understands, under the policy of whoever asks.

A type that is not on the list is an error here, where the plan is made, and not one of each message.
"""

from __future__ import annotations

import collections
import collections.abc
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, SimpleNamespace
from typing import Any, Final, cast, final, get_args, get_origin

from .._core.secret import Secret
from .annotations import (
    ARRAYS,
    TABLES,
    UNIONS,
    NotUnderstoodError,
    alias_value,
    dotted,
    fixed_items,
    is_alias,
    is_enum,
    loaded,
    origin_of,
    peeled,
)
from .classes import Fields, fields_of
from .foreign import adapted, foreign
from .leaves import NAMED
from .limits import UnknownLimitError, limits_in
from .nodes import Array, Fixed, Late, Limited, Node, Table, key_of
from .single import Imported, SecretNode, enumeration, literal
from .unions import Union
from .walk import Policy

_NULL: Final = (None, NoneType)
_ANYTHING: Final = frozenset({Any, object})


@final
class Compiled:
    """The node of a type, and whether the type contains itself."""

    __slots__ = ("is_recursive", "node")

    def __init__(self, node: Node, *, is_recursive: bool) -> None:
        self.node = node
        self.is_recursive = is_recursive


def compile_type(annotation: object, policy: Policy) -> Compiled:
    """Return the node of a type.

    Raises:
        NotUnderstoodError: if it is not on the list of those that are understood.
    """
    try:
        if isinstance(annotation, type) and not get_args(annotation):
            return _of_class(annotation, policy)
        return _Compiler(policy).compile(annotation)
    except NotUnderstoodError:
        raise
    except Exception as error:  # what looks at types runs code of the user's and of other libraries
        raise NotUnderstoodError(f"{type(error).__name__} while looking at {annotation!r}", str(error)) from error


@functools.lru_cache(maxsize=1024)
def _of_class(cls: type[object], policy: Policy) -> Compiled:
    return _Compiler(policy).compile(cls)


@final
class _Compiler:
    """Compiles one type with all that it contains."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._open: dict[object, Late] = {}
        self._late: list[tuple[Late, object]] = []
        self._done: dict[object, Node] = {}
        self._unions: list[Union] = []
        self._namespaces: list[dict[str, object]] = [{}]

    def compile(self, annotation: object) -> Compiled:
        node = self.node(annotation)
        for union in self._unions:
            union.settle()
        return Compiled(node, is_recursive=bool(self._late))

    def node(self, annotation: object) -> Node:
        if isinstance(annotation, typing.ForwardRef | str):
            return self.node(self._referred(annotation))
        if get_origin(annotation) is typing.Annotated:
            return self._annotated(annotation)
        if is_alias(annotation):
            return self._once(annotation, lambda: self._alias(annotation))
        if (inner := peeled(annotation)) is not annotation:
            return self.node(inner)
        if isinstance(annotation, typing.TypeVar):
            return self._variable(annotation)
        return self._simple(annotation) or self._composite(annotation)

    def _simple(self, annotation: object) -> Node | None:
        """Return the node of a type without parts."""
        node = self._leaf(annotation)
        if node is not None:
            node.asked = annotation
        return node

    def _leaf(self, annotation: object) -> Node | None:
        if annotation in self._policy.leaves:
            words, read, schema = self._policy.leaves[annotation]
            return Node(words, read, schema, rank=_RANKS.get(annotation, 2))
        if (named := NAMED.get(dotted(annotation))) is not None:
            words, make, schema = named
            return Node(
                words, make(cast("type[Any]", annotation)), schema, rank=6 if "Path" in dotted(annotation) else 2
            )
        if get_origin(annotation) is typing.Literal:
            return literal(get_args(annotation))
        if is_enum(annotation):
            return enumeration(annotation)
        return self._of_manifests(annotation) if self._policy.is_strict else None

    def _of_manifests(self, annotation: object) -> Node | None:
        origin = origin_of(annotation)
        if origin is Secret:
            return SecretNode()
        if origin is type or origin is cast("object", collections.abc.Callable):
            return Imported(annotation)
        return None

    def _composite(self, annotation: object) -> Node:
        origin, arguments = origin_of(annotation), get_args(annotation)
        if origin in UNIONS:
            return self._union(arguments)
        if (items := fixed_items(annotation)) is not None:
            return Fixed([self.node(item) for item in items])
        if origin in ARRAYS and len(arguments) <= 2:
            (asked, *_) = arguments or (object,)
            item = self.node(asked)
            if ARRAYS[origin] in {set, frozenset} and not item.has_hash():
                raise NotUnderstoodError(f"{asked!r} has no hash, and so cannot be in a set")
            return Array(ARRAYS[origin], item, self._policy)
        if origin in TABLES:
            return self._table(origin, arguments)
        return self._once(annotation, lambda: self._class(annotation))

    def _once(self, annotation: object, make: Callable[[], Node]) -> Node:
        """Return a node that is made once; of a type that is just being made, one that stands for it."""
        if annotation in self._done:
            return self._done[annotation]
        if annotation in self._open:
            late = Late()
            self._late.append((late, annotation))
            return late
        self._open[annotation] = Late()
        node = self._done[annotation] = make()
        del self._open[annotation]
        for late, wanted in self._late:
            if wanted == annotation:
                late.settle(node)
        return node

    def _class(self, annotation: object) -> Node:
        if origin_of(annotation) is Secret:
            raise NotUnderstoodError("a Secret does not come in a message")
        if (made := foreign(annotation, self._policy)) is not None:
            return made
        fields = fields_of(annotation)
        if fields is None:
            name = dotted(annotation) or repr(annotation)
            raise NotUnderstoodError(f"{name} is not understood")
        nodes = {field.key: (field, self.node(field.type)) for field in fields}
        return Fields(annotation, nodes, self._policy)

    def _alias(self, annotation: object) -> Node:
        module = loaded(getattr(origin_of(annotation), "__module__", ""))
        self._namespaces.append(cast("dict[str, object]", vars(module) if module else {}))
        try:
            return self.node(alias_value(annotation))
        finally:
            self._namespaces.pop()

    def _referred(self, reference: typing.ForwardRef | str) -> object:
        name = reference if isinstance(reference, str) else reference.__forward_arg__
        holder = SimpleNamespace(__annotations__={"it": name})
        try:
            return typing.get_type_hints(holder, globalns=self._namespaces[-1], include_extras=True)["it"]
        except Exception as error:  # evaluates what somebody wrote
            raise NotUnderstoodError(f'"{name}" cannot be resolved', str(error)) from error

    def _annotated(self, annotation: object) -> Node:
        inner, *metadata = get_args(annotation)
        tag = next((tag for one in metadata if isinstance(tag := getattr(one, "discriminator", None), str)), "")
        try:
            limits = list(limits_in(metadata))
        except UnknownLimitError:
            if loaded("pydantic") is None:
                raise
            return adapted(annotation, self._policy)
        if tag and origin_of(inner) in UNIONS:
            node: Node = self._union(get_args(inner), tag)
        else:
            node = self.node(inner)
        return Limited(node, limits) if limits else node

    def _variable(self, variable: typing.TypeVar) -> Node:
        if variable.__bound__ is not None:
            return self.node(variable.__bound__)
        if variable.__constraints__:
            return self._union(variable.__constraints__)
        if self._policy.is_strict:
            return self.node(object)
        raise NotUnderstoodError(f"{variable} stands for no type")

    def _union(self, arguments: Sequence[object], tag: str = "") -> Node:
        types = [argument for argument in arguments if argument not in _NULL]
        options = [self.node(argument) for argument in types]
        is_optional = len(types) < len(arguments)
        union = Union(options, is_optional=is_optional, tag=tag, types=[peeled(argument) for argument in types])
        self._unions.append(union)
        return union

    def _table(self, origin: object, arguments: Sequence[object]) -> Node:
        if origin is collections.Counter:
            arguments = (*(arguments or (object,)), int)
        key, item = arguments or (object, object)
        key_node = self.node(key)
        if key_node.kind != "scalar":
            raise NotUnderstoodError(f"{key!r} cannot be a key")
        return Table(
            TABLES[origin], key_node if self._policy.is_strict else key_of(key_node), self.node(item), self._policy
        )


_RANKS: Final[Mapping[object, int]] = {
    **dict.fromkeys((bool, int, str), 1),
    bytes: 5,
    bytearray: 5,
    **dict.fromkeys(_ANYTHING, 9),
}
