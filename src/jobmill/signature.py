"""What a handler's signature says: its name, its payload type and its result type."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import (
    Any,
    Never,
    NoReturn,
    NotRequired,
    Required,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from jobmill.context import JobContext
from jobmill.errors import DefinitionError
from jobmill.registry import described

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_NAMES_CONTEXT = re.compile(r"\bJobContext\b")
_MAIN = ("__main__", "__mp_main__")


def default_name(handler: Callable[..., Any]) -> str:
    """The function's module-qualified name, the same in a script as where it is imported."""
    function = _function(handler)
    module: str = getattr(function, "__module__", None) or ""
    qualname: str = getattr(function, "__qualname__", None) or ""
    if module in _MAIN:
        module = _script_name(function)
    name = f"{module}.{qualname}".replace(".<locals>", "")
    if not module or not qualname or "<" in name:
        message = f"{described(handler)} has no name that another process could find; give name="
        raise DefinitionError(message)
    return name


def signature_of(handler: object) -> inspect.Signature:
    """The handler's signature; DefinitionError where it is no function that can run a job."""
    if not callable(handler) or isinstance(handler, type):
        message = f"{described(handler)} is no function; a handler is a def or an async def"
        raise DefinitionError(message)
    function = _function(handler)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        message = f"{described(handler)} yields; a handler returns its result"
        raise DefinitionError(message)
    try:
        return inspect.signature(handler)
    except (TypeError, ValueError) as error:
        message = f"{described(handler)} has no signature that can be read: {error}"
        raise DefinitionError(message) from error


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling the handler gives a coroutine."""
    return inspect.iscoroutinefunction(_function(handler))


def check_takes_context(handler: Callable[..., Any], signature: inspect.Signature) -> None:
    """DefinitionError where the handler does not take one context and nothing else."""
    try:
        signature.bind(None)
    except TypeError:
        message = (
            f"{described(handler)} takes {signature}, but a handler of define_job takes "
            "one JobContext; for plain arguments use @job"
        )
        raise DefinitionError(message) from None
    annotation = next(iter(signature.parameters.values())).annotation
    unknown = annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, str)
    if not unknown and not _is_context(annotation):
        raise _no_context(handler, annotation)


def check_takes_no_context(handler: Callable[..., Any], signature: inspect.Signature) -> None:
    """DefinitionError where a parameter is a JobContext, as far as can be seen now."""
    for parameter in signature.parameters.values():
        annotation = parameter.annotation
        text = annotation if isinstance(annotation, str) else ""
        if _is_context(annotation) or _NAMES_CONTEXT.search(text):
            raise _context_under_job(handler, parameter.name)


def payload_type(handler: Callable[..., Any], signature: inspect.Signature) -> Any:
    """The P of the JobContext[P] that the handler takes; Any where it says none."""
    first = next(iter(signature.parameters.values()))
    if first.annotation is first.empty:
        return Any
    annotation = _resolve(handler, first.name, first.annotation)
    if annotation is Any:
        return Any
    if not _is_context(annotation):
        raise _no_context(handler, annotation)
    return next(iter(get_args(annotation)), Any)


def arguments_type(handler: Callable[..., Any], signature: inspect.Signature) -> Any:
    """A TypedDict of the handler's parameters; those that may be left out are not required."""
    fields: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        hint: Any = Any
        if parameter.annotation is not parameter.empty:
            hint = _resolve(handler, name, parameter.annotation)
        if _is_context(hint):
            raise _context_under_job(handler, name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            hint = tuple[hint, ...]
        elif parameter.kind is parameter.VAR_KEYWORD:
            hint = dict[str, hint]
        needed = parameter.default is parameter.empty and parameter.kind not in _VARIADIC
        fields[name] = Required[hint] if needed else NotRequired[hint]
    return cast("Any", TypedDict)(getattr(handler, "__name__", "arguments"), fields)


def result_type(handler: Callable[..., Any], signature: inspect.Signature) -> Any:
    """The type that the handler's run gives; Any where it says none."""
    if signature.return_annotation is signature.empty:
        return Any
    hint = _resolve(handler, "return", signature.return_annotation)
    return Any if hint in (Never, NoReturn) else hint


def _function(handler: Any) -> Any:
    while isinstance(handler, partial):
        handler = handler.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    if inspect.isroutine(handler) or isinstance(handler, type):
        return handler
    return getattr(handler, "__call__", handler)  # noqa: B004 - the method itself is wanted


def _script_name(function: Any) -> str:
    names: Mapping[str, Any] = getattr(function, "__globals__", None) or vars(
        sys.modules["__main__"]
    )
    if (spec := names.get("__spec__")) is not None:
        return cast("str", spec.name)
    from pathlib import PurePath

    return PurePath(names.get("__file__") or "").stem


def _is_context(annotation: object) -> bool:
    cls = get_origin(annotation) or annotation
    return isinstance(cls, type) and issubclass(cls, JobContext)


def _context_under_job(handler: object, parameter: str) -> DefinitionError:
    message = (
        f"{described(handler)} takes a JobContext ({parameter}); use @define_job for it, "
        "or current_context() inside @job"
    )
    return DefinitionError(message)


def _no_context(handler: object, annotation: object) -> DefinitionError:
    message = (
        f"{described(handler)} takes {annotation!r}, but a handler of define_job takes "
        "one JobContext; for plain arguments use @job"
    )
    return DefinitionError(message)


def _resolve(handler: object, name: str, annotation: Any) -> Any:
    function = inspect.unwrap(_function(handler))
    names = getattr(function, "__globals__", {})
    known = {"JobContext": JobContext, "jobmill": sys.modules["jobmill"], **names}

    def holder() -> None: ...

    holder.__annotations__ = {name: annotation}
    try:
        return get_type_hints(holder, known, {}, include_extras=True)[name]
    except Exception as error:
        message = (
            f"{described(handler)}: the annotation of {name}, {annotation!r}, does not resolve "
            f"({error}); it has to be a type that can be imported from its module at run time"
        )
        raise DefinitionError(message) from error
