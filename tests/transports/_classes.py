"""Classes of events that are drawn from a seed, in all five styles, with an event of each."""

from __future__ import annotations

import datetime
import decimal
import enum
import random
import uuid
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import Any, Literal, TypedDict

import attrs
import msgspec
import pydantic
from kernel_events import event

STYLES = ("attrs", "dataclass", "pydantic", "msgspec", "typeddict")


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Rank(enum.IntEnum):
    FIRST = 1
    SECOND = 2


@attrs.frozen
class Drawn:
    """One class with an event of it."""

    cls: type[Any]
    event: Any
    style: str
    text: str
    """The annotations, for a test that fails."""


@attrs.frozen
class _Kind:
    """A type, and how a value of it is drawn."""

    annotation: Any
    draw: Callable[[], Any]


def draw_classes(seed: int, count: int) -> list[Drawn]:
    """Return so many classes, the styles in turn; the same ones for the same seed."""
    chance = random.Random(seed)
    return [_Drawer(chance, STYLES[number % len(STYLES)]).draw(f"Event{number}") for number in range(count)]


@attrs.define
class _Drawer:
    chance: random.Random
    style: str
    named: int = 0

    def draw(self, name: str) -> Drawn:
        kinds = self._fields(depth=0)
        kinds["nested"] = self._nested(1)
        kinds["maybe"] = self._optional(1)
        kinds["either"] = self._union(1)
        kinds["size"] = self._enum()
        kinds["at"], kinds["price"] = self._moment(), self._decimal()
        cls = self._made(name, kinds)
        happened = self._instance(cls, kinds)
        text = ", ".join(f"{field}: {kind.annotation}" for field, kind in kinds.items())
        return Drawn(event()(cls), happened, self.style, text)

    def _fields(self, depth: int) -> dict[str, _Kind]:
        return {f"field{number}": self._kind(depth) for number in range(self.chance.randint(1, 4))}

    def _kind(self, depth: int) -> _Kind:
        plain = [self._text, self._number, self._real, self._flag, self._enum, self._moment, self._decimal, self._id]
        plain += [self._day, self._literal]
        deeper: list[Callable[[int], _Kind]] = [self._list, self._dict, self._optional, self._union, self._nested]
        if depth < 3 and self.chance.random() < 0.5:
            return self.chance.choice(deeper)(depth + 1)
        return self.chance.choice(plain)()

    # --- plain ones ---------------------------------------------------------------------------------------------------

    def _text(self) -> _Kind:
        return _Kind(str, lambda: "".join(self.chance.choices('aZ é"\\\n\t☃𝄞0', k=self.chance.randint(0, 12))))

    def _number(self) -> _Kind:
        return _Kind(int, lambda: self.chance.choice([0, -1, 2**53 + 1, -(2**63), self.chance.randint(-9999, 9999)]))

    def _real(self) -> _Kind:
        return _Kind(float, lambda: self.chance.choice([0.0, -0.5, 1e-300, 1e300, self.chance.uniform(-1e6, 1e6)]))

    def _flag(self) -> _Kind:
        return _Kind(bool, lambda: self.chance.random() < 0.5)

    def _enum(self) -> _Kind:
        cls: Any = self.chance.choice([Size, Rank])
        return _Kind(cls, lambda: self.chance.choice(list(cls)))

    def _moment(self) -> _Kind:
        start = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
        return _Kind(
            datetime.datetime, lambda: start + datetime.timedelta(microseconds=self.chance.randint(-(10**16), 10**16))
        )

    def _day(self) -> _Kind:
        return _Kind(datetime.date, lambda: datetime.date.fromordinal(self.chance.randint(1, 3_000_000)))

    def _decimal(self) -> _Kind:
        drawn = ["0", "-0.10", "1E+10", "79228162514264337593543950335", "0.1234567890123456789"]
        return _Kind(decimal.Decimal, lambda: decimal.Decimal(self.chance.choice(drawn)))

    def _id(self) -> _Kind:
        return _Kind(uuid.UUID, lambda: uuid.UUID(int=self.chance.getrandbits(128)))

    def _literal(self) -> _Kind:
        return _Kind(Literal["a", "b"], lambda: self.chance.choice("ab"))

    # --- made of others -----------------------------------------------------------------------------------------------

    def _list(self, depth: int) -> _Kind:
        item = self._kind(depth)
        return _Kind(list[item.annotation], lambda: [item.draw() for _ in range(self.chance.randint(0, 3))])

    def _dict(self, depth: int) -> _Kind:
        value = self._kind(depth)
        return _Kind(
            dict[str, value.annotation], lambda: {f"k{n}": value.draw() for n in range(self.chance.randint(0, 3))}
        )

    def _optional(self, depth: int) -> _Kind:
        inner = self._kind(depth)
        return _Kind(inner.annotation | None, lambda: inner.draw() if self.chance.random() < 0.7 else None)

    def _union(self, depth: int) -> _Kind:
        number, other = self._number(), self.chance.choice([self._text(), self._list(depth)])
        return _Kind(number.annotation | other.annotation, lambda: self.chance.choice([number, other]).draw())

    def _nested(self, depth: int) -> _Kind:
        self.named += 1
        kinds = self._fields(depth)
        cls = self._made(f"Nested{self.named}", kinds)
        return _Kind(cls, lambda: self._instance(cls, kinds))

    # --- the five styles ----------------------------------------------------------------------------------------------

    def _made(self, name: str, kinds: dict[str, _Kind]) -> Any:
        fields = {field: kind.annotation for field, kind in kinds.items()}
        match self.style:
            case "attrs":
                return attrs.make_class(
                    name, {key: attrs.field(type=kind) for key, kind in fields.items()}, frozen=True
                )
            case "dataclass":
                return make_dataclass(name, list(fields.items()))
            case "pydantic":
                return pydantic.create_model(name, **{key: (kind, ...) for key, kind in fields.items()})  # type: ignore[call-overload]
            case "msgspec":
                return msgspec.defstruct(name, list(fields.items()))
            case _:
                return TypedDict(name, fields)  # type: ignore[operator]

    def _instance(self, cls: Any, kinds: dict[str, _Kind]) -> Any:
        return cls(**{field: kind.draw() for field, kind in kinds.items()})
