"""Whether a value comes back from JSON as it was, and where it would not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set as AbstractSet
from datetime import datetime, time
from decimal import Decimal
from typing import Any, TypeAlias, cast

import msgspec

Found: TypeAlias = tuple[str, str] | None
"""The path of a fault and what it is; None where there is none."""

MAX_DEPTH = 64

_MAX_KEY = 100
_PLAIN: tuple[type, ...] = (dict, list, tuple, str, int, float, bool, type(None))
_BYTES: tuple[type, ...] = (bytes, bytearray, memoryview)
_LEAVES: tuple[type, ...] = (str, int, float, bool, type(None), *_BYTES)
_LISTS: tuple[type, ...] = (list, tuple)


def step(path: str, key: object) -> str:
    """The path of what is under `key` of what is at `path`: `$.to`, `$[2]`, `$["a b"]`."""
    if isinstance(key, str):
        if key.isidentifier():
            return f"{path}.{key[:_MAX_KEY]}"
        return f"{path}[{msgspec.json.encode(_sayable(key[:_MAX_KEY])).decode()}]"
    return f"{path}[{key}]"


def equality_is_sure(type_: Any) -> bool:
    """Whether values of the type are only equal when all that JSON tells of them is.

    Raises: TypeError for a type that does not come back from JSON.
    """
    from msgspec import inspect

    sure = True
    for each in _parts(inspect.type_info(type_), set()):
        if isinstance(each, inspect.CustomType):
            cls: Any = each.cls
            if cls is not object and not hasattr(cls, "model_validate_json"):
                message = f"{cls.__name__} is no dataclass, Struct, pydantic model or JSON type"
                raise TypeError(message)
            compared_by = getattr(cls.__eq__, "__module__", "")
            sure = sure and (cls is object or compared_by.startswith("pydantic"))
        elif isinstance(each, inspect.DataclassType):
            sure = sure and _generated(each.cls)
        elif isinstance(each, inspect.StructType):
            sure = sure and each.cls.__eq__ is msgspec.Struct.__eq__
    return sure


def unsayable(value: object, encode: Callable[[object], bytes]) -> Found:
    """The first part of the value that JSON cannot say, or not exactly."""
    return _unsayable(value, "$", 1, encode)


def loss(value: object, back: object) -> Found:
    """The first part of the value that is no longer there, or another, in what came back."""
    return _loss(value, back, "$")


def _unsayable(value: object, path: str, depth: int, encode: Callable[[object], bytes]) -> Found:
    if isinstance(value, _LEAVES):
        return _unsayable_leaf(value, path, encode)
    children = _children(value)
    if children is None:
        return _unsayable_leaf(value, path, encode)
    if depth > MAX_DEPTH:
        return path, f"nested deeper than {MAX_DEPTH}"
    if hasattr(type(value), "model_validate_json"):
        # A pydantic model has its own ways to tell what is in it.
        encode = _told
    for key, child in children:
        if found := _unsayable_key(key, path, encode):
            return found
        if found := _unsayable(child, step(path, key), depth + 1, encode):
            return found
    return None


def _unsayable_key(key: object, path: str, encode: Callable[[object], bytes]) -> Found:
    if isinstance(key, int):
        return None
    if isinstance(key, str):
        if _is_sayable(key):
            return None
        return step(path, _sayable(key)), "the key holds a lone surrogate, which is no character"
    try:
        encode({key: None})
    except Exception as error:  # noqa: BLE001 - the class is the user's; it may raise anything
        return path, f"JSON cannot say this key, a {type(key).__name__}: {error}"
    return None


def _unsayable_leaf(value: object, path: str, encode: Callable[[object], bytes]) -> Found:
    if isinstance(value, float) and not math.isfinite(value):
        return path, f"JSON has no {value}; give a finite number or None"
    if isinstance(value, str) and not _is_sayable(value):
        return path, "the text holds a lone surrogate, which is no character"
    try:
        encode(value)
    except Exception as error:  # noqa: BLE001 - the class is the user's; it may raise anything
        return path, f"JSON cannot say this {type(value).__name__}: {error}"
    return None


def _told(_value: object) -> bytes:
    return b""


def _loss(value: object, back: object, path: str) -> Found:
    if isinstance(value, Mapping):
        return _mapping_loss(cast("Mapping[object, object]", value), back, path)
    if isinstance(value, _LEAVES):
        return _leaf_loss(value, back, path)
    if isinstance(value, AbstractSet):
        return (
            None
            if isinstance(back, AbstractSet)
            else (path, _comes_back(cast("object", value), back))
        )
    if isinstance(value, Sequence):
        return _sequence_loss(cast("Sequence[object]", value), back, path)
    fields = _fields(value)
    if fields is None or isinstance(back, _PLAIN):
        return _leaf_loss(value, back, path)
    return _first(
        _loss(getattr(value, name, None), getattr(back, name), step(path, name))
        if hasattr(back, name)
        else (step(path, name), f"this field would be lost: the job takes {_kind(back)}")
        for name in fields
    )


def _mapping_loss(value: Mapping[object, object], back: object, path: str) -> Found:
    if isinstance(back, Mapping):
        others = cast("Mapping[object, object]", back)
    elif (known := _names(back)) is not None:
        others = known
    else:
        return _leaf_loss(value, back, path)
    for key, child in value.items():
        if key not in others:
            if isinstance(key, str):
                return step(path, key), "the job takes no such field"
            return path, f"the key {key!r} would come back as a string; use strings as keys"
        if found := _loss(child, others[key], step(path, key)):
            return found
    return None


def _sequence_loss(value: Sequence[object], back: object, path: str) -> Found:
    if not isinstance(back, _LISTS):
        return _leaf_loss(value, back, path)
    others = cast("Sequence[object]", back)
    if len(value) != len(others):
        return path, f"{len(value)} items would come back as {len(others)}"
    return _first(
        _loss(item, other, step(path, index))
        for index, (item, other) in enumerate(zip(value, others, strict=True))
    )


def _leaf_loss(value: object, back: object, path: str) -> Found:
    try:
        if bool(value == back):
            return None
    except Exception:  # noqa: BLE001 - the class is the user's; comparing may raise anything
        return path, _comes_back(value, back)
    if type(value) is not type(back):
        # What the type made richer (text into a date) is meant; what became plainer is lost, and
        # text is never meant as the base64 of bytes.
        lost = isinstance(back, (*_PLAIN, *_BYTES))
        return (path, _comes_back(value, back)) if lost else None
    if isinstance(value, datetime | time):
        # The hour that a clock repeats is never equal across zones, though it is the same text.
        same = value.isoformat() == cast("datetime | time", back).isoformat()
    elif isinstance(value, Decimal):
        same = str(value) == str(back)
    else:
        # Where equality is identity there is nothing to compare.
        same = type(value).__eq__ is object.__eq__
    return None if same else (path, "this would come back as another value")


def _first(founds: Iterator[Found]) -> Found:
    return next((found for found in founds if found), None)


def _comes_back(value: object, back: object) -> str:
    return f"a {_kind(value)} would come back as a {_kind(back)}"


def _kind(value: object) -> str:
    return type(value).__name__


def _children(value: object) -> Iterator[tuple[object, object]] | None:
    if isinstance(value, Mapping):
        return iter(cast("Mapping[object, object]", value).items())
    if isinstance(value, Sequence | AbstractSet):
        return enumerate(cast("Sequence[object]", value))
    fields = _fields(value)
    if fields is None:
        return None
    return ((name, getattr(value, name, None)) for name in fields)


def _fields(value: object) -> Sequence[str] | None:
    """The names of the attributes that JSON tells of an object; None for any other value."""
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    cls: Any = type(value)
    if hasattr(cls, "model_validate_json"):
        return list(cls.model_fields)
    if hasattr(cls, "__attrs_attrs__"):
        return [field.name for field in cls.__attrs_attrs__]
    return None


def _names(back: object) -> dict[object, object] | None:
    """What an object holds, under each name that a mapping may call it by."""
    fields = _fields(back)
    if fields is None:
        return None
    held: dict[object, object] = {name: getattr(back, name, None) for name in fields}
    cls: Any = type(back)
    if isinstance(back, msgspec.Struct):
        held |= {
            encoded: held[name]
            for name, encoded in zip(fields, back.__struct_encode_fields__, strict=True)
        }
        if back.__struct_config__.tag_field is not None:
            held[back.__struct_config__.tag_field] = back.__struct_config__.tag
    elif hasattr(cls, "model_validate_json"):
        held |= cast("dict[object, object]", getattr(back, "model_extra", None) or {})
        for name, field in cls.model_fields.items():
            for alias in (field.alias, field.validation_alias, field.serialization_alias):
                if isinstance(alias, str):
                    held[alias] = held[name]
    return held


def _generated(cls: Any) -> bool:
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.eq:
        return False
    # The comparison that @dataclass writes is compiled from text; one written by hand is not.
    code = getattr(cls.__eq__, "__code__", None)
    written = code is not None and code.co_filename == "<string>"
    return written and all(field.compare for field in dataclasses.fields(cls))


def _parts(info: object, seen: set[int]) -> Iterator[object]:
    """The type's description and those of all that it is made of."""
    if isinstance(info, tuple | list):
        for each in cast("Sequence[object]", info):
            yield from _parts(each, seen)
    elif isinstance(info, msgspec.Struct) and id(info) not in seen:
        seen.add(id(info))
        yield info
        for name in info.__struct_fields__:
            yield from _parts(getattr(info, name), seen)


def _is_sayable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sayable(text: str) -> str:
    return text.encode(errors="replace").decode()
