"""Frozen dataclasses whose fields carry their meaning, their source and their range."""

import dataclasses
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from gcl_core.errors import GCLError, check_known

# Of settings without a bound of their own: none needs more, and float32 takes products of a few.
LARGEST = 10**9
RULES = {
    "low": (">=", operator.ge),
    "high": ("<=", operator.le),
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
}


def value(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    allowed: Iterable[str] | None = None,
    late: bool = False,
) -> Any:
    """A dataclass field with its meaning, its source and the range it is held to.

    A class as default stands for the default of its argument of that name. A late field came after
    runs had been named: at its default it is no part of a run's name (`to_dict`).
    """
    limits = {"low": low, "high": high, "above": above, "below": below, "allowed": allowed}
    return dataclasses.field(default=default, metadata={"text": text, "late": late, **limits})


@typing.dataclass_transform(frozen_default=True)
class Config:
    """Base of the settings: every class below it is a frozen dataclass, without the decorator.

    Its fields, each a `value` or a part of the settings, are checked when it is made, and listed in
    its docstring.
    """

    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls) -> None:
        fields = {n: f for n, f in vars(cls).items() if isinstance(f, dataclasses.Field)}
        for name, field in fields.items():
            if isinstance(field.default, type):
                field.default = inspect.signature(field.default).parameters[name].default
        if fields:
            texts = [
                f"{n} (default {f.default!r}): {f.metadata['text']}" for n, f in fields.items()
            ]
            cls.__doc__ = "\n    ".join([f"{cls.__doc__}\n\nAttributes:", *texts])
        dataclasses.dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        hints = _types_of(type(self))  # type: ignore[arg-type]
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if field.metadata:
                given = coerce(field.name, given, hints[field.name])
                _check_range(field.name, given, field.metadata)
                object.__setattr__(self, field.name, given)
            elif not isinstance(given, Config | None):  # a second decorator drops what is known
                raise TypeError(f"{field.name} is no value(): leave the dataclass decorator out")

    def keywords(self) -> dict[str, Any]:
        """Values by field name, for what is built from them."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields}


def kinds_of(base: type[Config]) -> dict[str, Any]:
    """The classes below a base that have a `name`, by it, in the order of their definition."""
    kinds: dict[str, Any] = {}
    for kind in base.__subclasses__():
        kinds |= ({vars(kind)["name"]: kind} if "name" in vars(kind) else {}) | kinds_of(kind)
    return kinds


@functools.cache  # evaluating the annotations takes most of the time that a configuration takes
def _types_of(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def coerce(name: str, given: Any, annotation: Any) -> Any:
    """`given`, or the text of it, as the annotated type.

    Raises:
        GCLError: it is not of that type; the message names the setting and the type.
    """
    origin, choices = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        if given is None or (isinstance(given, str) and given.lower() == "none"):
            return None
        annotation = next(c for c in choices if c is not type(None))
        return coerce(name, given, annotation)
    if origin is tuple:
        parts = given.split(",") if isinstance(given, str) else given
        if isinstance(parts, list | tuple):
            return tuple(coerce(name, part, choices[0]) for part in parts)
    elif annotation is bool:
        texts = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        texts[""] = True  # `--strict` alone
        if isinstance(given, bool):
            return given
        if isinstance(given, str) and given.lower() in texts:
            return texts[given.lower()]
    elif annotation is str:
        if isinstance(given, str):
            return given
    elif not isinstance(given, bool):
        try:
            number = float(given)
            if annotation is float and math.isfinite(number):
                return number
            if annotation is int and number.is_integer():
                return given if isinstance(given, int) else int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    raise GCLError(f"{name} must be {_type_name(annotation)}, got {given!r}")


def _type_name(annotation: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(annotation, "numbers with commas between them")


def _check_range(name: str, given: Any, limits: Mapping[str, Any]) -> None:
    if given is not None and limits["allowed"] is not None:
        check_known(name, given, limits["allowed"])
    if given is None or isinstance(given, str):
        return
    bounds = {"low": -LARGEST, "high": LARGEST} | {k: v for k, v in limits.items() if v is not None}
    for number in given if isinstance(given, tuple) else (given,):
        for key, (sign, holds) in RULES.items():
            if key in bounds and not holds(number, bounds[key]):
                raise GCLError(f"{name} must be {sign} {bounds[key]}, got {number}")
