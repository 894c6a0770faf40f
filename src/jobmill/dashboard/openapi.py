"""What /api and the probes take and give, as OpenAPI 3.1: made of the very types that they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from jobmill.dashboard import api, views
from jobmill.dashboard.actions import JOB_ACTIONS, Done
from jobmill.dashboard.filters import MOST_SEARCHED
from jobmill.dashboard.reads.figures import WINDOWS
from jobmill.dashboard.reads.jobs import MOST
from jobmill.states import STATES
from jobmill.version import VERSION

_Schema = dict[str, Any]

_LABEL: Final[_Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,100}$"}
_NAME: Final[_Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,200}$"}


class Parameter(NamedTuple):
    """A parameter of the query."""

    name: str
    schema: _Schema
    text: str


class Path(NamedTuple):
    """One path: what it is asked by, takes and gives, one of some where it is a tuple."""

    method: str
    path: str
    text: str
    gives: Any
    query: Sequence[Parameter] = ()
    takes: Any = None
    errors: Sequence[int] = ()

    @property
    def several(self) -> bool:
        """Whether it gives one of some."""
        return isinstance(self.gives, tuple)


_QUEUE: Final = Parameter("queue", _LABEL, "The queue's label; else all of them.")
_WINDOW: Final = Parameter(
    "window",
    {"type": "integer", "enum": [round(window) for window in WINDOWS]},
    "Seconds that figures go back.",
)
_LIMIT: Final = Parameter(
    "limit", {"type": "integer", "minimum": 1}, f"So many at most, and never more than {MOST}."
)
_CURSOR: Final = Parameter("cursor", {"type": "string"}, "Go on where a list ended.")
_SEARCH: Final = (
    Parameter(
        "q",
        {"type": "string", "maxLength": MOST_SEARCHED},
        "A search: job:NAME, id:ID, error:TEXT, unique:KEY, state:STATE, queue:LABEL.",
    ),
    Parameter(
        "state",
        {"type": "array", "items": {"type": "string", "enum": list(STATES)}},
        "Only these states.",
    ),
)

PATHS: Final = (
    Path("get", "/api/session", "Who asks, and the token that a POST carries.", api.SessionView),
    Path("get", "/api/overview", "All queues together, and each.", views.Overview, (_WINDOW,)),
    Path(
        *("get", "/api/queues/{queue}", "One queue, with its jobs by name.", views.QueueView),
        query=(_WINDOW,),
        errors=(404,),
    ),
    Path(
        *("get", "/api/jobs", "Jobs by a filter, newest first.", views.JobList),
        query=(*_SEARCH, _QUEUE, _LIMIT, _CURSOR),
        errors=(400,),
    ),
    Path(
        *("get", "/api/jobs/{id}", "One job, with its whole life.", views.JobView),
        query=(_QUEUE,),
        errors=(404,),
    ),
    Path("get", "/api/schedules", "All schedules.", views.ScheduleList, (_QUEUE,)),
    Path(
        *("get", "/api/schedules/{name}", "One schedule, with its ticks."),
        (views.ScheduleView, views.ScheduleRow),
        query=(_QUEUE,),
        errors=(404,),
    ),
    Path("get", "/api/workers", "Who works, and on what.", views.WorkerList, (_QUEUE,)),
    Path("get", "/api/errors", "What fails, and how often.", views.ErrorList, (_QUEUE, _LIMIT)),
    Path(
        *("get", "/api/audit", "Who did what, the last first.", views.AuditList),
        query=(_QUEUE, _LIMIT, _CURSOR),
    ),
    *(
        Path(
            *("post", f"/api/jobs/{action}", f"Do {action} to jobs, or count them first."),
            (Done, api.Counted),
            takes=api.JobsBody,
            errors=(400, 404),
        )
        for action in JOB_ACTIONS
    ),
    *(
        Path(
            *("post", f"/api/queues/{{queue}}/{action}", f"{action.title()} a queue, or a job."),
            Done,
            takes=api.PauseBody,
            errors=(400, 404),
        )
        for action in ("pause", "resume")
    ),
    *(
        Path(
            *("post", f"/api/schedules/{{name}}/{action}", f"{action.title()} a schedule."),
            Done,
            takes=api.QueueBody,
            errors=(400, 404),
        )
        for action in ("pause", "resume", "trigger")
    ),
    Path(
        *("get", "/scale/{queue}", "How much there is to do: for an autoscaler.", api.Scale),
        errors=(404,),
    ),
    Path("get", "/healthz", "It is alive.", str),
    Path("get", "/readyz", "Every store answers.", str),
    Path("get", "/metrics", "Figures, for Prometheus.", str, errors=(501,)),
)

_REFUSED: Final[Mapping[int, str]] = {
    400: "Something of it will not do; the answer says what.",
    401: "Who asks is not known.",
    403: "The token is missing, or a viewer may not do that.",
    404: "There is no such thing.",
    501: "What that needs is not installed.",
    503: "A store does not answer.",
}


def description(base: str) -> dict[str, Any]:
    """The document; `base` is where the dashboard is mounted."""
    types: list[Any] = [api.Refusal, *(path.takes for path in PATHS if path.takes is not None)]
    for path in PATHS:
        types += _kinds(path)
    found, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for path in PATHS:
        paths.setdefault(path.path, {})[path.method] = _operation(path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobmill dashboard",
            "version": VERSION,
            "description": "A POST carries the token of /api/session as X-CSRF-Token, or names its "
            "user by HTTP Basic. Units: seconds.",
        },
        "servers": [{"url": base or "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(components),
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
        "security": [{}, {"basic": []}],
    }


def _operation(path: Path, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": word[1:-1],
            "in": "path",
            "required": True,
            "schema": _LABEL if word == "{queue}" else _NAME,
        }
        for word in path.path.split("/")
        if word.startswith("{")
    ]
    parameters += [
        {"name": each.name, "in": "query", "schema": each.schema, "description": each.text}
        for each in path.query
    ]
    kinds = _kinds(path)
    good: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if kinds:
        schema = {"anyOf": [schemas[kind] for kind in kinds]} if kinds[1:] else schemas[kinds[0]]
        good = {"application/json": {"schema": schema}}
    refused = {"application/json": {"schema": schemas[api.Refusal]}}
    codes = sorted({*path.errors, 401, 503, *((403,) if path.method == "post" else ())})
    if path.path == "/healthz":
        codes = []
    answers = {str(code): {"description": _REFUSED[code], "content": refused} for code in codes}
    operation: dict[str, Any] = {
        "summary": path.text,
        "parameters": parameters,
        "responses": {"200": {"description": "Done.", "content": good}, **answers},
    }
    if path.path == "/readyz":
        operation["responses"]["503"]["content"] = good
    if path.takes is not None:
        content = {"application/json": {"schema": schemas[path.takes]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _kinds(path: Path) -> tuple[Any, ...]:
    """The types of its answers in JSON."""
    if path.gives is str:
        return ()
    return path.gives if path.several else (path.gives,)
