from __future__ import annotations

import enum
import hashlib
import math
import subprocess
import sys
import uuid
import zoneinfo
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given, strategies as st

from jobmill.codec import Codec, codec, decode, encode
from jobmill.errors import DefinitionError, PayloadError, PayloadTooLarge

NAN, INFINITY = math.nan, math.inf
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


@dataclass(frozen=True, slots=True)
class Email:
    to: str
    subject: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Letter(Email):
    stamp: str = "80c"


@dataclass
class Batch:
    emails: list[Email]
    by_name: dict[str, Email] = field(default_factory=dict[str, Email])


@dataclass(eq=False)
class Silent:
    score: float | None = None
    items: list[int] = field(default_factory=list[int])


@dataclass
class Careless:
    name: str
    score: float | None = field(default=None, compare=False)


@dataclass
class Entity:
    id: int
    score: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]


class Order(msgspec.Struct, tag="order", rename="camel"):
    order_number: int
    lines: list[int] = []


class Picture(TypedDict):
    path: str
    width: NotRequired[int]


class Person(pydantic.BaseModel):
    name: str
    born: date | None = None
    score: float | None = None
    tags: set[str] = set()


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    born: date


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    first_name: str = pydantic.Field(alias="firstName")


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Opaque:
    pass


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (None, Any),
    ("", str),
    ({}, dict[str, Any]),
    ([], list[int]),
    ("NUL \0 in the middle", str),
    ({"\0": "\0"}, dict[str, Any]),
    ("\U0001f600 \u202e \x1b[31m </script>", Any),
    (2**53 + 1, Any),
    (2**63 - 1, int),
    (2**63, int),
    (2**64 - 1, Any),
    (2**64, Any),
    (-(2**63) - 1, Any),
    (10**300, int),
    (-0.0, float),
    (5e-324, Any),
    (1.7976931348623157e308, Any),
    (nested(64), Any),
    ({"a": {"b": [1, 2.5, True, None, "x"]}}, dict[str, Any]),
    ({"a": 1}, dict[str, object]),
    ({"a": 1}, Mapping[str, object]),
    ({1: "a", 2: "b"}, dict[int, str]),
    ({date(2030, 1, 1): 1}, dict[date, int]),
    (Email("a", "b", 0.5), Email),
    (Batch([Email("a")], {"x": Email("b")}), Batch),
    (Order(5, [1]), Order),
    ({"path": "a"}, Picture),
    (Person(name="a", born=date(2030, 1, 1), tags={"x", "y"}), Person),
    ([Person(name="a")], list[Person]),
    ({"a": Person(name="a")}, dict[str, Person]),
    (Strict(born=date(2030, 1, 1)), Strict),
    (Aliased(firstName="a"), Aliased),
    (datetime(2030, 1, 1, tzinfo=UTC), datetime),
    (datetime(2030, 1, 1), datetime),  # noqa: DTZ001 - inside a payload it is the user's own
    (timedelta(days=1, microseconds=5), timedelta),
    (Decimal("1.10"), Decimal),
    (uuid.UUID(int=5), uuid.UUID),
    (b"\x00\xff", bytes),
    ({1, 2}, set[int]),
    (frozenset({1}), frozenset[int]),
    ((1, "a"), tuple[int, str]),
    (Point(1, 2), Point),
    (Color.RED, Color),
    ("a", Literal["a", "b"]),
    (5, Annotated[int, msgspec.Meta(ge=0)]),
    (OrderedDict(b=1, a=2), dict[str, int]),
]


@pytest.mark.parametrize(("value", "type_"), ROUND_TRIPS, ids=lambda each: str(each)[:40])
def test_what_is_taken_comes_back_exactly(value: Any, type_: Any) -> None:
    back = decode(encode(value, type_), type_)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, OrderedDict | set | frozenset | Person)


COERCED: list[tuple[Any, Any, Any]] = [
    ((1, [2, (3,)]), Any, [1, [2, [3]]]),
    (1, float, 1.0),
    ("2030-01-01", date, date(2030, 1, 1)),
    ({"to": "a"}, Email, Email("a")),
    ({"type": "order", "orderNumber": 5}, Order, Order(5)),
    ({"orderNumber": 5}, Order, Order(5)),
    ({"firstName": "a"}, Aliased, Aliased(firstName="a")),
    ({"name": "a"}, Person, Person(name="a")),
    ([1, 1], set[int], {1}),
    ("red", Color, Color.RED),
]


@pytest.mark.parametrize(("value", "type_", "back"), COERCED, ids=str)
def test_what_the_type_makes_of_plain_values_is_meant(value: Any, type_: Any, back: Any) -> None:
    assert decode(encode(value, type_), type_) == back


REFUSED: list[tuple[Any, Any, str]] = [
    # What JSON has no form for.
    (NAN, Any, "$"),
    ({"a": [1, INFINITY]}, Any, "$.a[1]"),
    ({"a": {"b c": -INFINITY}}, Any, '$.a["b c"]'),
    (Email("a", score=NAN), Email, "$.score"),
    (Batch([Email("a"), Email("b", score=NAN)]), Batch, "$.emails[1].score"),
    (Silent(score=NAN), Silent, "$.score"),
    (Careless("a", score=NAN), Careless, "$.score"),
    (Entity(1, score=NAN), Entity, "$.score"),
    (Person(name="a", score=NAN), Person, "$.score"),
    ("\ud800", Any, "$"),
    (Email("a\udfffb"), Email, "$.to"),
    ({"a": ["x", "\ud83d"]}, dict[str, Any], "$.a[1]"),
    ({"\ud800": 1}, Any, '$["?"]'),
    (Person(name="\ud800"), Person, "$.name"),
    (10**5000, Any, "$"),
    ({"a": 10**5000}, Any, "$.a"),
    (nested(65), Any, "$" + "[0]" * 64),
    (nested(1_000), Any, "$" + "[0]" * 64),
    (nested(100_000), Any, "$" + "[0]" * 64),
    (cycle(), Any, "$" + ".self" * 64),
    ({"a": Opaque()}, Any, "$.a"),
    ({"a": [print]}, Any, "$.a[0]"),
    (1 + 2j, Any, "$"),
    # What would come back as something else.
    ({"a": {1, 2}}, dict[str, Any], "$.a"),
    ({"a": b"x"}, dict[str, Any], "$.a"),
    ({"a": bytearray(b"x")}, dict[str, object], "$.a"),
    ({"a": [datetime(2030, 1, 1, tzinfo=UTC)]}, Any, "$.a[0]"),
    ({"a": Decimal("1.5")}, Any, "$.a"),
    ({"a": Email("a")}, Any, "$.a"),
    ({"a": Order(5)}, Any, "$.a"),
    ({"a": Person(name="a")}, Any, "$.a"),
    (Color.RED, Any, "$"),
    ({1: 2}, dict[str, Any], "$"),
    ({"a": {1: 2}}, Any, "$.a"),
    ({"a": {None: 2}}, Any, "$.a"),
    ({1: 2, "1": 3}, Any, "$"),
    (2**63 + 1, float, "$"),
    ("text", bytes, "$"),
    ({"a": ["text"]}, dict[str, list[bytes]], "$.a[0]"),
    (Letter("a", stamp="1e"), Email, "$.stamp"),
    (Login(password=pydantic.SecretStr("hush")), Login, "$.password"),
    # What does not fit the type.
    (Email(5), Email, "$.to"),  # type: ignore[arg-type]
    (Batch([Email("a"), Email(None)]), Batch, "$.emails[1].to"),  # type: ignore[arg-type]
    (Batch([], {"x": Email("a"), "y z": Email(5)}), Batch, '$.by_name["y z"].to'),  # type: ignore[arg-type]
    (None, Email, "$"),
    ("a", Email, "$"),
    ({"subject": "a"}, Email, "$"),
    ({"to": "a", "cc": "b"}, Email, "$.cc"),
    ({"path": "a", "hight": 5}, Picture, "$.hight"),
    ({"path": 5}, Picture, "$.path"),
    ({str(n): n if n != 77 else "x" for n in range(1_000)}, dict[str, int], '$["77"]'),
    ({"a": 1}, dict[int, int], "$"),
    ([1, "2"], list[int], "$[1]"),
    (True, int, "$"),
    ("5", int, "$"),
    (1.5, int, "$"),
    (5, Literal["a"], "$"),
    (-1, Annotated[int, msgspec.Meta(ge=0)], "$"),
    (Person.model_construct(name=5), Person, "$.name"),
    ({"a": [{"name": 5}]}, dict[str, list[Person]], "$.a[0].name"),
    ("x", None, "$"),
]


@pytest.mark.parametrize(("value", "type_", "path"), REFUSED, ids=lambda each: str(type(each)))
def test_what_would_not_come_back_is_refused_with_its_path(
    value: Any, type_: Any, path: str
) -> None:
    with pytest.raises(PayloadError) as refused:
        encode(value, type_)
    assert refused.value.path == path
    assert str(refused.value).startswith(path)


HOSTILE = [
    b"",
    b" ",
    b"\xff",
    b'"\xed\xa0\x80"',
    b'"\\ud800 alone"',
    b'{"a": "\\udc00"}',
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"9" * 5_000,
    b'{"a":',
    b'{"a":1}}',
    b'"',
    b"[" * 65 + b"]" * 65,
    b"[" * 1_000 + b"]" * 1_000,
    b"[" * 1_000_000,
    b'{"a":' * 100_000,
    b'"' + b'\\"' * 500_000,
    b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    b"!!python/object/apply:os.system ['true']",
]


@pytest.mark.parametrize("type_", [Any, Email, Person, Picture, Order, dict[str, Any]], ids=str)
@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: repr(data[:12]))
def test_hostile_bytes_are_a_payload_error(data: bytes, type_: Any) -> None:
    with pytest.raises(PayloadError):
        decode(data, type_)


@given(st.binary(), st.sampled_from([Any, Email, Person, dict[str, int], Order]))
def test_any_bytes_are_a_value_or_a_payload_error(data: bytes, type_: Any) -> None:
    try:
        value = decode(data, type_)
    except PayloadError:
        return
    assert decode(encode(value, type_), type_) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.sets(st.integers())
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_value_comes_back_or_is_refused(value: Any) -> None:
    try:
        data = encode(value)
    except PayloadError:
        assert not comes_back(value)
    else:
        assert decode(data) == listed(value)
        assert comes_back(value)


def listed(value: Any) -> Any:
    match value:
        case dict():
            return {key: listed(item) for key, item in value.items()}
        case list() | tuple():
            return [listed(item) for item in value]
        case _:
            return value


def comes_back(value: Any) -> bool:
    match value:
        case dict():
            return all(isinstance(key, str) and comes_back(value[key]) for key in value)
        case list() | tuple():
            return all(map(comes_back, value))
        case float():
            return math.isfinite(value)
        case str():
            return not any("\ud800" <= character <= "\udfff" for character in value)
        case _:
            return not isinstance(value, set)


def test_the_limit_is_of_bytes_of_json() -> None:
    value = {"a": "x" * 10}
    size = len(encode(value))
    assert encode(value, limit=size) == encode(value)
    with pytest.raises(PayloadTooLarge) as refused:
        encode(value, limit=size - 1)
    assert (refused.value.size, refused.value.limit) == (size, size - 1)
    with pytest.raises(PayloadTooLarge):
        decode(b'"aaaa"', limit=5)
    assert decode(b'"aaaa"', limit=6) == "aaaa"


def test_brackets_inside_strings_are_no_nesting() -> None:
    for value in ["[" * 500, ['\\"[' * 500], {"[" * 100: "]" * 10}, [["]" * 500, "[" * 500]]]:
        assert decode(encode(value)) == value
    deep = nested(65)
    deep[0][0].append("]" * 500)
    with pytest.raises(PayloadError):
        encode(deep)


def test_many_shallow_brackets_are_no_nesting() -> None:
    value = [{"n": [n]} for n in range(1_000)]
    assert decode(encode(value)) == value


def test_equal_payloads_give_equal_bytes() -> None:
    assert encode({"b": 1, "a": {"d": 2, "c": 3}}) == encode({"a": {"c": 3, "d": 2}, "b": 1})
    assert encode({2: 1, 1: 2}, dict[int, int]) == encode({1: 2, 2: 1}, dict[int, int])
    many = {str(n) for n in range(100)}
    assert encode(many, set[str]) == encode({str(n) for n in reversed(range(100))}, set[str])
    digest = hashlib.sha256(encode(Email("a"), Email)).hexdigest()
    assert digest == hashlib.sha256(b'{"to":"a","subject":"","score":null}').hexdigest()


def test_the_same_hour_told_twice_by_a_clock_is_no_loss() -> None:
    first = datetime(2030, 10, 27, 2, 30, tzinfo=BERLIN)
    second = first.replace(fold=1)
    for moment in (first, second):
        assert decode(encode(moment, datetime), datetime).timestamp() == moment.timestamp()


def test_unknown_fields_are_passed_over_when_decoding() -> None:
    assert decode(b'{"to":"a","gone":1}', Email) == Email("a")


def test_errors_do_not_repeat_secret_input() -> None:
    with pytest.raises(PayloadError) as refused:
        decode(b'{"name": ["hush-hush"]}', Person)
    assert "hush" not in str(refused.value)


def test_a_class_that_raises_anything_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match=r"Picky.*KeyError"):
        decode(b'{"name": "a"}', Picky)
    with pytest.raises(PayloadError, match=r"Picky.*KeyError"):
        encode({"name": "a"}, Picky)


@dataclass
class Picky:
    name: str

    def __post_init__(self) -> None:
        raise KeyError(self.name)


class Uneven:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("type_", [Opaque, list[Opaque], dict[str, Opaque], Uneven, type, "Email"])
def test_a_type_that_json_cannot_bring_back_is_a_definition_error(type_: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be told in JSON"):
        Codec(type_)


def test_a_named_tuple_without_types_is_a_list_in_json() -> None:
    pair = namedtuple("pair", "a b")  # noqa: PYI024 - without types on purpose
    assert decode(encode({"a": pair(1, 2)})) == {"a": [1, 2]}


def test_there_is_one_codec_for_a_type() -> None:
    assert codec(dict[str, int]) is codec(dict[str, int])
    unhashable = Annotated[int, [1]]
    assert codec(unhashable).encode(5) == b"5"


_AT_ONCE = """
import sys, threading
from types import ModuleType

from jobmill.codec import Codec

sys.setswitchinterval(1e-6)
for number in range(40):
    lines = ["from __future__ import annotations", "import msgspec"]
    for place in range(8):
        lines.append(f"class T{place}(msgspec.Struct):")
        lines += [f"    f{each}: int | None = None" for each in range(20)]
        lines.append(f"    inner: T{max(place - 1, 0)} | None = None")
    module = ModuleType(f"types{number}")
    sys.modules[module.__name__] = module
    exec("\\n".join(lines), module.__dict__)
    there = threading.Barrier(6)

    def use(type_=module.T7):
        there.wait()
        assert Codec(type_).decode(b'{"f1": 1, "inner": {"f2": 2}}').inner.f2 == 2

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_use_a_type_for_the_first_time_at_once() -> None:
    # In a process of its own, which it would end.
    subprocess.run([sys.executable, "-c", _AT_ONCE], check=True, timeout=100)
