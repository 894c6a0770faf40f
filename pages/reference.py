"""The reference: every public name with its signature and its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, Final, get_overloads, is_typeddict

import jobmill
from jobmill import errors, testing

GROUPS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "jobs.md": (
        "Jobs",
        (
            *("job", "define_job", "JobDefinition", "Call", "JobOptions", "JobHooks"),
            *("JobContext", "AbortSignal", "current_context"),
            *("Retry", "Snooze", "Cancel", "Fail", "JobHandler"),
        ),
    ),
    "queues.md": (
        "Queues and workers",
        (
            *("create_queue", "Queue", "InMemoryQueue", "SQLiteQueue", "RedisQueue"),
            *("PostgresQueue", "EnqueueOptions", "JobHandle", "JobInfo", "JobPage", "JobError"),
            *("QueueStats", "Worker"),
        ),
    ),
    "schedules.md": (
        "Schedules",
        ("Scheduler", "Schedule", "CronExpression", "CronPatterns", "Timezones"),
    ),
    "monitor.md": ("Monitor", ("Monitor", "JobMetrics", "SystemHealth")),
    "middleware.md": (
        "Middleware",
        (
            *("JobMiddleware", "compose_middleware", "create_validation_middleware"),
            *("create_logging_middleware", "create_rate_limit_middleware"),
            "create_retry_middleware",
        ),
    ),
}
ERRORS: Final = "errors.md"
TESTING: Final = "testing.md"

_HEADS: Final = re.compile(r"^(Raises|Units|Order|Atomic|Cost|Source|Durable):", re.MULTILINE)
_MODULES: Final = re.compile(
    r"\b(?:jobmill|collections|typing|datetime|contextlib)(?:\.\w+)*\.(?=[A-Z])"
)
_QUOTED: Final = re.compile(r"(?<=[:>] )'([^']*)'")
_PARAMETER: Final = re.compile(r"(?<=\()(?=\w|\*|/)|, (?=\*?\*?\w+(?::|=|,|\)))")
_WIDE: Final = 96


def reference() -> dict[str, str]:
    """The pages, by file name."""
    pages = {
        name: _page(title, {each: getattr(jobmill, each) for each in names})
        for name, (title, names) in GROUPS.items()
    }
    pages[ERRORS] = _page("Errors", {each: getattr(errors, each) for each in error_names()})
    pages[TESTING] = _page(
        "The testing kit", {each: getattr(testing, each) for each in testing.__all__}
    )
    titles = [*((name, title) for name, (title, _) in GROUPS.items()), (ERRORS, "Errors")]
    links = "".join(f"- [{title}]({name})\n" for name, title in titles)
    pages["index.md"] = (
        "# Reference\n\nPrinted from the docstrings. What is not here, or in `jobmill.store`, may "
        f"change.\n\n{links}- [The testing kit]({TESTING})\n- [The command line](../cli.md)\n"
    )
    return pages


def error_names() -> list[str]:
    """The public errors, that are not raised by handlers to steer their job."""
    shown = {each for _, names in GROUPS.values() for each in names}
    return [
        name
        for name in jobmill.__all__
        if name not in shown
        and isinstance(value := getattr(jobmill, name), type)
        and issubclass(value, BaseException)
    ]


def _page(title: str, values: dict[str, Any]) -> str:
    return f"# {title}\n\n" + "\n".join(_entry(name, value) for name, value in values.items())


def _entry(name: str, value: Any) -> str:
    """One public name."""
    if is_typeddict(value):
        return f"## {name}\n\n{_text(value)}\n{_rows(value.__annotations__)}"
    text = _told(f"## {name}", name, value)
    if not inspect.isclass(value):
        return text
    if dataclasses.is_dataclass(value):
        fields = {each.name: each.type for each in dataclasses.fields(value)}
        return text + _rows({key: kind for key, kind in fields.items() if key[0] != "_"})
    constants = {key: repr(each) for key, each in vars(value).items() if key.isupper()}
    if constants:
        text += _rows(constants)
    parts = [
        _told(f"### {name}.{part}", part, member)
        for part, member in vars(value).items()
        if not part.startswith("_") and _is_told(member)
    ]
    return text + "".join(f"\n{part}" for part in parts)


def _is_told(member: Any) -> bool:
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    return bool(getattr(member, "__doc__", None)) and (
        inspect.isfunction(member) or isinstance(member, property)
    )


def _told(heading: str, name: str, value: Any) -> str:
    shapes = get_overloads(value) if inspect.isfunction(value) else []
    signatures = [_signature(name, each) for each in shapes or [value]]
    code = "```text\n" + "\n".join(signatures) + "\n```\n\n" if any(signatures) else ""
    return f"{heading}\n\n{code}{_text(value)}\n"


def _text(value: Any) -> str:
    """The docstring, with examples in it as code, and Raises and its like set apart."""
    document = inspect.getdoc(value) if callable(value) or isinstance(value, property) else None
    if not document or document == inspect.getdoc(type(value)):
        return ""
    # What looks like HTML, as <lambda>, is none.
    return _HEADS.sub(r"**\1:**", document).replace("<", "&lt;")


def _signature(name: str, value: Any) -> str:
    if isinstance(value, property):
        return ""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if inspect.isclass(value) and issubclass(value, BaseException):
        base = value.__mro__[1].__name__
        return f"class {name}({base})"
    if not callable(value) or type(value).__module__ == "typing":
        return f"{name} = {_plain(str(value))}"
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    shown = f"{name}{_plain(str(signature))}"
    return f"async {shown}" if inspect.iscoroutinefunction(value) else shown


def _plain(signature: str) -> str:
    """Without module names and quotes, which say nothing to a reader."""
    signature = _QUOTED.sub(r"\1", _MODULES.sub("", signature))
    for own in ("self, /, ", "self, "):
        signature = signature.replace(f"({own}", "(")
    signature = signature.replace("(self)", "()")
    if len(signature) <= _WIDE:
        return signature
    return _PARAMETER.sub(lambda found: f"{found[0].rstrip()}\n    ", signature)


def _rows(values: Mapping[str, object]) -> str:
    rows = [
        f"| `{key}` | `{_plain(str(value)).replace('|', chr(92) + '|')}` |"
        for key, value in values.items()
    ]
    return "\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"
