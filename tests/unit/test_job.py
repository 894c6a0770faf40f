from __future__ import annotations

import functools
import hashlib
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from jobmill.codec import Codec
from jobmill.context import JobContext
from jobmill.errors import ConfigError, DefinitionError, PayloadError
from jobmill.job import AsyncFunctionJob, FunctionJob, JobDefinition, JobHooks, define_job, job
from jobmill.options import JobOptions
from jobmill.registry import isolated, lookup, registered

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

Context = JobContext[Any]


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    with isolated():
        yield


def given(payload: Any) -> JobContext[Any]:
    """A context as far as these handlers look at it."""
    ctx: Context = object.__new__(JobContext)
    ctx.payload = payload
    return ctx


async def deliver(ctx: JobContext[Email]) -> str:
    return ctx.payload.to


def shrink(ctx: JobContext[dict[str, int]]) -> bytes:
    return bytes(ctx.payload["n"])


def resize(path: str, width: int = 100) -> bytes:
    return f"{path}:{width}".encode()


async def fetch(url: str) -> str:
    return url


async def layer(ctx: Context, proceed: Callable[[], Awaitable[Any]]) -> Any:
    return await proceed()


@dataclass(frozen=True, slots=True)
class Email:
    """Defined after the handler that takes it."""

    to: str


# ------------------------------------------------------------------------------- defining


def test_a_job_by_function_and_by_decorator_is_the_same() -> None:
    hooks = JobHooks(before_run=print)
    one = define_job(
        name="one", handler=deliver, options=JobOptions(retries=5), hooks=hooks, middleware=[layer]
    )
    two = define_job(name="two", retries=5, hooks=hooks, middleware=layer)(deliver)
    assert type(one) is type(two) is JobDefinition
    for each in (one, two):
        assert each.handler is deliver
        assert each.options == JobOptions(retries=5)
        assert each.options.given == {"retries"}
        assert each.hooks is hooks
        assert each.middleware == (layer,)
        assert each.is_async
        assert each.takes_context


def test_a_function_becomes_a_job_bare_or_with_options() -> None:
    bare, chosen = job(resize), job(name="chosen", retries=5)(resize)
    assert type(bare) is type(chosen) is FunctionJob
    assert type(job(fetch)) is AsyncFunctionJob
    assert not bare.takes_context
    assert not bare.is_async
    assert chosen.options.retries == 5


def test_the_name_is_the_functions_own() -> None:
    assert job(resize).name == f"{__name__}.resize"
    assert define_job(deliver).name == f"{__name__}.deliver"
    assert define_job()(shrink).name == f"{__name__}.shrink"

    @job
    def local() -> None: ...

    assert local.name == f"{__name__}.test_the_name_is_the_functions_own.local"


def test_keywords_hold_over_options() -> None:
    definition = job(options=JobOptions(retries=1, timeout=5), retries=2)(resize)
    assert (definition.options.retries, definition.options.timeout) == (2, 5.0)
    assert definition.options.given == {"retries", "timeout"}


def test_a_definition_looks_like_its_function() -> None:
    definition = job(resize)
    assert definition.__name__ == "resize"  # type: ignore[attr-defined]
    assert inspect.signature(definition) == inspect.signature(resize)
    assert repr(definition) == f"FunctionJob('{__name__}.resize')"


@pytest.mark.parametrize("name", ["", "a b", "a" * 201, "<lambda>", "é", 5])
def test_a_malformed_name_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot name a job"):
        define_job(name=name, handler=deliver)
    assert not registered()


def test_a_function_without_a_name_needs_one() -> None:
    with pytest.raises(DefinitionError, match="give name="):
        job(lambda: None)
    assert job(name="named")(lambda: None).name == "named"


def test_a_taken_name_is_refused_and_the_first_stays() -> None:
    first = define_job(name="send", handler=deliver)
    with pytest.raises(DefinitionError, match=r"'send' is defined already, by .*deliver"):
        define_job(name="send", handler=shrink)
    assert lookup("send") is first


WRONG_HANDLERS: list[tuple[Any, str]] = [
    (lambda: None, "use @job"),
    (lambda ctx, more: None, "use @job"),
    (lambda *, ctx: None, "use @job"),
    (5, "is no function"),
    ("deliver", "is no function"),
    (Email, "is no function"),
]


@pytest.mark.parametrize(("handler", "told"), WRONG_HANDLERS)
def test_a_handler_takes_one_context(handler: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        define_job(name="wrong", handler=handler)


def test_plain_arguments_are_for_job() -> None:
    def plain(email) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    plain.__annotations__["email"] = Email
    with pytest.raises(DefinitionError, match="for plain arguments use @job"):
        define_job(name="plain", handler=plain)

    def later(email: Email) -> None: ...

    definition = define_job(name="later", handler=cast("Any", later))
    with pytest.raises(DefinitionError, match="for plain arguments use @job"):
        definition.encode_payload(Email("a"))


def test_a_context_is_for_define_job() -> None:
    def resolved(ctx, path) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    resolved.__annotations__["ctx"] = JobContext[str]
    for function in (deliver, resolved):
        with pytest.raises(DefinitionError, match=r"takes a JobContext \(ctx\); use @define_job"):
            job(function)

    @job
    def hidden(ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="use @define_job"):
        hidden.encode_payload({})


def test_a_generator_is_no_handler() -> None:
    async def stream(ctx: Context) -> AsyncIterator[int]:
        yield 1

    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(DefinitionError, match="yields"):
        define_job(stream)
    with pytest.raises(DefinitionError, match="yields"):
        job(items)


def test_an_executor_is_for_a_plain_def() -> None:
    with pytest.raises(DefinitionError, match="event loop"):
        job(executor="process")(fetch)
    assert job(executor="process")(resize).options.executor == "process"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("hooks", {}),
        ("hooks", [print]),
        ("options", {"retries": 3}),
        ("options", 0),
        ("middleware", 5),
        ("middleware", [layer, 5]),
        ("middleware", "layer"),
        ("retries", -1),
        ("timeout", "30"),
    ],
)
def test_a_wrong_option_is_a_config_error_that_names_it(keyword: str, value: Any) -> None:
    for define in (define_job, job):
        with pytest.raises(ConfigError, match=f"^{keyword}: ") as refused:
            cast("Any", define)(**{keyword: value})
        assert refused.value.field == keyword


def test_a_hook_that_is_no_function_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        JobHooks(on_error=cast("Any", "log"))
    assert refused.value.field == "on_error"


def test_an_unknown_keyword_is_pythons_type_error() -> None:
    with pytest.raises(TypeError, match=r"job\(\) got an unexpected keyword argument 'retry'"):
        cast("Any", job)(retry=3)
    with pytest.raises(TypeError, match=r"define_job\(\) got an unexpected .* 'queue'"):
        cast("Any", define_job)(queue="a", handler=deliver)


# ------------------------------------------------------------------------- calling, running


async def test_a_definition_is_callable_as_its_handler_is() -> None:
    assert job(resize)("a", width=3) == b"a:3"
    assert await job(fetch)("a") == "a"
    assert await define_job(deliver)(given(Email("a"))) == "a"
    assert define_job(shrink)(given({"n": 2})) == b"\0\0"


def test_a_call_is_a_job_with_its_payload() -> None:
    send = define_job(deliver)
    call = send.call(Email("secret"))
    assert call.job is send
    assert call.payload == Email("secret")
    assert "secret" not in repr(call)

    @define_job
    def sweep(ctx: JobContext[None]) -> None: ...

    assert sweep.call().payload is None
    assert sweep.decode_payload(sweep.encode_payload(None)) is None


def test_a_call_of_a_function_holds_what_was_bound() -> None:
    definition = job(resize)
    assert definition.call("a").payload == {"path": "a"}
    assert definition.call("a", width=3).payload == {"path": "a", "width": 3}
    for wrong in ({}, {"path": "a", "height": 3}):
        with pytest.raises(TypeError):
            cast("Any", definition.call)(**wrong)


def every(a: int, b: int = 2, /, c: int = 3, *more: int, d: str = "4", **rest: float) -> list[Any]:
    return [a, b, c, more, d, rest]


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, 5), {}),
    ((1, 5, 6), {}),
    ((1,), {"c": 6}),
    ((1, 5, 6, 7, 8), {"d": "x"}),
    ((1,), {"x": 0.5, "y": 1.5}),
    ((1, 5, 6, 7), {"a": 0.5, "d": "x"}),
]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_a_function_runs_with_the_arguments_of_its_call(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    definition = job(every)
    payload = definition.call(*args, **kwargs).payload
    decoded = definition.decode_payload(definition.encode_payload(payload))
    assert decoded == payload
    assert definition.invoke(given(decoded)) == every(*args, **kwargs)


def test_a_function_of_no_arguments_needs_no_payload() -> None:
    @job
    def tidy() -> int:
        return 5

    data = tidy.encode_payload(None)
    assert data == tidy.encode_payload(tidy.call().payload) == b"{}"
    assert tidy.invoke(given(tidy.decode_payload(data))) == 5


def test_a_function_that_lost_an_argument_still_runs() -> None:
    definition = job(resize)
    decoded = definition.decode_payload(b'{"path":"a","gone":1}')
    assert definition.invoke(given(decoded)) == b"a:100"


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"path": 5}, "$.path"),
        ({"path": "a", "width": "3"}, "$.width"),
        ({"path": "a", "widht": 3}, "$.widht"),
        ({"width": 3}, "$"),
        (None, "$"),
        ("a", "$"),
        ([], "$"),
    ],
)
def test_arguments_are_validated_when_encoded(payload: Any, path: str) -> None:
    with pytest.raises(PayloadError) as refused:
        job(resize).encode_payload(payload)
    assert refused.value.path == path


def test_payload_and_result_come_back_as_their_types() -> None:
    send = define_job(deliver)
    assert send.decode_payload(send.encode_payload(Email("a"))) == Email("a")
    assert send.decode_result(send.encode_result("a")) == "a"
    picture = job(resize)
    assert picture.decode_result(picture.encode_result(b"\xff\0")) == b"\xff\0"


def test_a_result_that_does_not_fit_is_a_payload_error() -> None:
    with pytest.raises(PayloadError):
        job(resize).encode_result("text")
    with pytest.raises(PayloadError):
        job(name="any")(lambda: None).encode_result(object())


def test_without_annotations_anything_that_json_can_say_is_taken() -> None:
    @job
    def loose(a, b=1):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return a, b

    assert loose.decode_payload(loose.encode_payload({"a": [1, "x"]})) == {"a": [1, "x"]}

    def bare(ctx: JobContext) -> NoReturn:  # type: ignore[type-arg]
        raise NotImplementedError

    for handler in (bare, lambda ctx: ctx, lambda *ctxs: ctxs):
        definition = define_job(name=f"loose{id(handler)}", handler=cast("Any", handler))
        assert definition.decode_payload(definition.encode_payload({"a": 1})) == {"a": 1}
        assert definition.encode_result(5) == b"5"


def test_an_annotation_that_does_not_resolve_is_named_at_first_use() -> None:
    @job
    def buy(price: OnlyForCheckers) -> None: ...

    with pytest.raises(DefinitionError, match=r"buy: the annotation of price, 'OnlyForCheckers'"):
        buy.encode_payload({"price": 1})
    assert buy.encode_result(None) == b"null"


def test_a_payload_type_that_json_cannot_bring_back_is_refused_at_first_use() -> None:
    @job
    def run(function: Callable[[], None]) -> None: ...

    with pytest.raises(DefinitionError, match="cannot be told in JSON"):
        run.encode_payload({"function": print})


async def test_partials_methods_and_objects_can_be_handlers() -> None:
    class Mailer:
        async def __call__(self, ctx: JobContext[Email]) -> str:
            return ctx.payload.to

        def send(self, to: str) -> str:
            return to

    mailer = Mailer()
    objected = define_job(name="object", handler=mailer)
    assert objected.is_async
    assert await objected.invoke(given(objected.decode_payload(b'{"to":"a"}'))) == "a"
    method = job(name="method")(mailer.send)
    assert method.invoke(given(method.decode_payload(b'{"to":"a"}'))) == "a"
    part = job(name="partial")(functools.partial(resize, width=7))
    assert part.invoke(given(part.decode_payload(b'{"path":"a"}'))) == b"a:7"


def test_a_decorated_handler_keeps_its_types() -> None:
    def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    definition = job(quiet(resize))
    assert definition.name == f"{__name__}.resize"
    with pytest.raises(PayloadError):
        definition.encode_payload({"path": 5})


# ----------------------------------------------------------------------------- unique keys


def test_the_unique_key_is_computed_from_the_payload() -> None:
    send = define_job(deliver)
    data = send.encode_payload(Email("a"))
    assert send.unique_key_for(Email("a"), data) is None
    same = define_job(name="same", handler=deliver, unique="payload")
    assert same.unique_key_for(Email("a"), data) == hashlib.sha256(data).hexdigest()
    own = define_job(name="own", handler=deliver, unique=lambda email: email.to)
    assert own.unique_key_for(Email("a"), data) == "a"


@pytest.mark.parametrize("unique", [lambda email: 5, lambda email: email.gone, lambda: "a"])
def test_a_unique_function_that_gives_no_key_is_a_payload_error(unique: Any) -> None:
    send = define_job(handler=deliver, unique=unique)
    with pytest.raises(PayloadError, match="unique function"):
        send.unique_key_for(Email("a"), b"{}")


# --------------------------------------------------------------------------------- registry


def test_the_registry_knows_what_is_defined() -> None:
    view = registered()
    assert lookup("send") is None
    send = define_job(name="send", handler=deliver)
    assert lookup("send") is send
    assert dict(view) == {"send": send}
    with isolated():
        assert lookup("send") is None
        define_job(name="send", handler=deliver)
    with isolated(empty=False):
        assert lookup("send") is send
        define_job(name="more", handler=deliver)
    assert dict(view) == {"send": send}


APP = """
from jobmill.job import job

@job
def resize() -> None: ...

print(resize.name)
"""


def names_in(folder: Path, *command: str) -> str:
    told = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    return told.stdout.strip() or told.stderr.strip().splitlines()[-1]


def test_a_script_names_its_jobs_as_those_who_import_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text(APP)
    assert names_in(tmp_path, "app.py") == "app.resize"
    assert names_in(tmp_path, "-c", "import app") == "app.resize"
    assert names_in(tmp_path, str(tmp_path / "app.py")) == "app.resize"
    assert names_in(tmp_path, "-m", "shop.app") == "shop.app.resize"
    assert names_in(tmp_path, "-c", "import shop.app") == "shop.app.resize"


def test_where_there_is_no_script_a_name_must_be_given(tmp_path: Path) -> None:
    assert "give name=" in names_in(tmp_path, "-c", APP)
    named = APP.replace("@job", "@job(name='a')")
    assert names_in(tmp_path, "-c", named) == "a"


def test_codecs_are_made_once() -> None:
    send = define_job(deliver)
    assert isinstance(send.payload_codec, Codec)
    assert send.payload_codec is send.payload_codec
