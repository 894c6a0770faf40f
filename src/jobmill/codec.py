"""Payloads and results as JSON: an exact round trip, or an error that says where it fails."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from jobmill.errors import DefinitionError, PayloadError, PayloadTooLarge
from jobmill.fidelity import MAX_DEPTH, equality_is_sure, loss, step, unsayable

_NULL = b"null"
_SHALLOW = 2 * MAX_DEPTH
"""Bytes that are too few to be nested too deep, since each level has a begin and an end."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AT = re.compile(r"(?s)(.*) - at (`key` in )?`([^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_BUILDING = threading.RLock()
"""Held while msgspec learns a type: where two threads have it learn one at once, the process dies
(seen with 0.22.0)."""


class Codec:
    """The JSON form of one type.

    Cost: one encode and one decode of an encode; one decode of a decode.
    """

    __slots__ = ("_decoder", "_sure", "_takes_none", "type")

    def __init__(self, type_: Any) -> None:
        self.type: Any = type_
        try:
            with _BUILDING:
                self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
                    type_, dec_hook=_from_json
                )
            self._sure = equality_is_sure(type_)
        except (TypeError, RecursionError) as error:
            message = f"{type_name(type_)} cannot be told in JSON: {error}"
            raise DefinitionError(message) from error
        self._takes_none = _none_comes_back(self._decoder)

    def encode(self, value: object, *, limit: int | None = None) -> bytes:
        """The value as JSON, proven to come back as it is; equal values give equal bytes.

        Raises: PayloadError with the path of what would not come back; PayloadTooLarge over
        `limit` bytes.
        """
        if value is None and self._takes_none and (limit is None or limit >= len(_NULL)):
            # What most handlers return; that it comes back was seen once.
            return _NULL
        try:
            data = _encode(value)
        except Exception as error:  # noqa: BLE001 - classes of the user's may raise anything
            self._refuse(value, error)
        if len(data) > _SHALLOW and _is_too_deep(data):
            self._refuse(value, None)
        if limit is not None and len(data) > limit:
            raise _too_large(len(data), limit)
        try:
            back = self._decoder.decode(data)
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(value, error, data)
        if not self._sure or not _equal(value, back):
            _raise_at(unsayable(value, _encode) or loss(value, back))
        return data

    def decode(self, data: bytes, *, limit: int | None = None) -> Any:
        """The value that the JSON tells, as this codec's type.

        Raises: PayloadError with the path of what does not fit, for any bytes whatever;
        PayloadTooLarge over `limit` bytes.
        """
        if limit is not None and len(data) > limit:
            raise _too_large(len(data), limit)
        try:
            value = self._decoder.decode(data)
        except Exception as error:
            raise self._undecodable(error, data) from error
        # Only now: on text that is known to be JSON, measuring its depth takes linear time.
        if len(data) > _SHALLOW and _is_too_deep(data):
            message = f"nested deeper than {MAX_DEPTH}"
            raise PayloadError(message, path="$")
        return value

    def _refuse(self, value: object, error: Exception | None, data: bytes = b"") -> NoReturn:
        _raise_at(unsayable(value, _encode), error)
        if error is None:
            message = f"nested deeper than {MAX_DEPTH}"
            raise PayloadError(message, path="$")
        if not data:
            message = f"JSON cannot say this: {error}"
            raise PayloadError(message, path="$") from error
        raise self._undecodable(error, data) from error

    def _undecodable(self, error: Exception, data: bytes) -> PayloadError:
        if isinstance(error, msgspec.ValidationError):
            return self._invalid(error, data)
        if isinstance(error, RecursionError):
            return PayloadError(f"$: nested deeper than {MAX_DEPTH}", path="$")
        if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
            return PayloadError(f"$: this is no JSON: {error}", path="$")
        told = f"{type_name(self.type)} refused it: {type(error).__name__}: {error}"
        return PayloadError(f"$: {told}", path="$")

    def _invalid(self, error: msgspec.ValidationError, data: bytes) -> PayloadError:
        found = _AT.fullmatch(str(error))
        text, is_key, path = found.groups() if found else (str(error), None, "$")
        if "[...]" in path:
            path = self._exact(path, str(error), data)
        if (details := getattr(error.__cause__, "errors", None)) is not None:
            # A pydantic error: its own text would repeat the input, which may be secret.
            first = details(include_url=False, include_input=False, include_context=False)[0]
            text = first["msg"]
            for key in first["loc"]:
                path = step(path, key)
        where = f"{path} (a key)" if is_key else path
        return PayloadError(f"{where}: {text}", path=path)

    def _exact(self, path: str, told: str, data: bytes) -> str:
        """The path with its keys in place of `[...]`, found by halving the mapping it is in."""
        root: Any = msgspec.json.decode(data)
        node = root
        exact = "$"
        key: str | int
        for name, index in _STEP.findall(path):
            if index == "...":
                if not hasattr(node, "items"):
                    return path
                key = self._halve(root, node, told)
            else:
                key = name or int(index)
            try:
                node = node[key]
            except (LookupError, TypeError):
                return exact
            exact = step(exact, key)
        return exact

    def _halve(self, root: object, node: Any, told: str) -> str:
        entries: list[tuple[str, object]] = list(node.items())
        while len(entries) > 1:
            half = entries[: len(entries) // 2]
            node.clear()
            node.update(half)
            entries = half if self._tells(root) == told else entries[len(half) :]
        node.clear()
        node.update(entries)
        return entries[0][0]

    def _tells(self, root: object) -> str | None:
        try:
            self._decoder.decode(msgspec.json.encode(root))
        except Exception as error:  # noqa: BLE001 - as in encode
            return str(error)
        return None


@lru_cache(maxsize=512)
def _cached(type_: Any) -> Codec:
    return Codec(type_)


def codec(type_: Any) -> Codec:
    """The codec of a type; the same one for the same type."""
    try:
        return _cached(type_)
    except TypeError:
        # Not every annotation can be hashed: Annotated[int, [1]].
        return Codec(type_)


def encode(value: object, type_: Any = Any, *, limit: int | None = None) -> bytes:
    """The value as JSON, validated against the type; PayloadError says where it does not fit."""
    return codec(type_).encode(value, limit=limit)


def decode(data: bytes, type_: Any = Any, *, limit: int | None = None) -> Any:
    """The value that the JSON tells, as the type; PayloadError says where it does not fit."""
    return codec(type_).decode(data, limit=limit)


def type_name(type_: Any) -> str:
    """What people call the type."""
    return type_.__name__ if isinstance(type_, type) else str(type_)


def _to_json(value: Any) -> object:
    if hasattr(value, "model_validate_json"):
        # Its warnings would repeat the values; what is wrong with them is found by the decode.
        return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    message = "it is no dataclass, Struct, pydantic model or JSON value"
    raise TypeError(message)


def _from_json(type_: Any, value: object) -> object:
    if type_ is object:
        return value
    # As JSON, because a strict model takes a date as text from JSON only.
    return type_.model_validate_json(msgspec.json.encode(value))


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json, order="deterministic")


def _encode(value: object) -> bytes:
    try:
        return _ENCODER.encode(value)
    except TypeError:
        # The sorting encoder takes no mapping with keys other than strings.
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_to_json)
        return _ENCODER.encode(plain)


def _none_comes_back(decoder: msgspec.json.Decoder[Any]) -> bool:
    try:
        return decoder.decode(_NULL) is None
    except Exception:  # noqa: BLE001 - classes of the user's may raise anything
        return False


def _equal(value: object, back: object) -> bool:
    try:
        return bool(back == value)
    except Exception:  # noqa: BLE001 - the classes are the user's; comparing may raise anything
        return False


def _is_too_deep(data: bytes) -> bool:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", data).translate(_BRACES_TO_BRACKETS, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        # Each round takes the innermost level away, all over the text.
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def _too_large(size: int, limit: int) -> PayloadTooLarge:
    message = f"$: {size} bytes of JSON are too many; the limit is {limit}"
    return PayloadTooLarge(message, path="$", size=size, limit=limit)


def _raise_at(found: tuple[str, str] | None, cause: Exception | None = None) -> None:
    if found is not None:
        path, text = found
        raise PayloadError(f"{path}: {text}", path=path) from cause
