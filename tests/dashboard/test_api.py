"""/api is what its description says, whatever it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.routing import Route

from jobmill import InMemoryQueue, Queue
from jobmill.dashboard import User, create_app
from jobmill.dashboard.openapi import PATHS
from jobmill.registry import isolated
from tests.conftest import SOAK
from tests.dashboard.kit import Asker, fill

EXAMPLES = 300 if SOAK else 3
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


async def test_the_description_is_one_and_says_all_paths(asker: Asker) -> None:
    told = (await asker.get("/api/openapi.json")).json()
    assert told["openapi"] == "3.1.0"
    for schema in told["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    routes: set[tuple[str, str]] = set()
    for route in create_app(InMemoryQueue()).routes:
        assert isinstance(route, Route)
        path = route.path
        (method,) = (route.methods or set()) - {"HEAD"}
        if path.startswith(("/api/", "/scale", "/healthz", "/readyz", "/metrics")):
            routes.add((method, path))
    described = {(path.method.upper(), path.path) for path in PATHS}
    actions = {(method, path) for method, path in routes if "{action}" in path}
    assert routes - actions - {("GET", "/api/openapi.json")} <= described
    for asked, path in actions:
        head = path.partition("{")[0]
        assert any(told == asked and there.startswith(head) for told, there in described), path


@pytest.mark.timeout(300)
def test_whatever_it_is_sent_it_answers_as_described() -> None:
    queue = InMemoryQueue(memory="described")
    asyncio.run(_fill(queue))
    app = create_app(queue, login=lambda _: User("ada", "operator"), allowed_hosts=["*"])
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    asked: set[str] = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            # Without this header a POST would be refused for its token, and nothing else be tried.
            answer = case.call(headers={"authorization": "Basic x"})
            case.validate_response(answer, checks=CHECKS)

        ask()
        asked.add(f"{operation.method} {operation.path}")
    assert len(asked) == len(PATHS)


async def _fill(queue: Queue) -> None:
    with isolated(empty=False):
        await fill(queue)
    await queue.close()
