"""Under a base path, in applications of others, every link leads back into the dashboard."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from jobmill import Queue
from jobmill.cli.ending import Ended
from jobmill.cli.web import _under, check_base
from jobmill.dashboard import create_app
from tests.dashboard.kit import HTML, PAGES, Asker, asking

BASE = "/ops/jobs"


def in_starlette(dashboard: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/ops", routes=[Mount("/jobs", dashboard)])])


def in_fastapi(dashboard: ASGIApp) -> ASGIApp:
    app = fastapi.FastAPI()
    app.mount(BASE, dashboard)
    return app


def by_the_command(dashboard: ASGIApp) -> ASGIApp:
    return _under(dashboard, check_base(f"{BASE}/"))


async def walk(asker: Asker, ids: dict[str, str]) -> None:
    """Every page, every link and form of it, a change, and what it leads to."""
    styles: set[str] = set()
    for path in PAGES:
        page = await asker.get(BASE + path.format(**ids), headers=HTML)
        assert page.status_code == 200, path
        links = re.findall(r'\s(?:href|src|action)="([^"]*)"', page.text)
        assert len(links) > 10
        for link in links:
            local = link.startswith((f"{BASE}/", "#")) or link == BASE
            assert local, (path, link)
        styles.update(re.findall(rf'"({BASE}/static/[^"]+)"', page.text))
    assert styles
    for style in styles:
        assert (await asker.get(style)).status_code == 200
    token = (await asker.get(f"{BASE}/api/session")).json()["csrf"]
    answer = await asker.post(f"{BASE}/queues/default/pause", data={"csrf": token})
    assert answer.headers["location"] == f"{BASE}/queues/default"
    assert f"Path={BASE};" in answer.headers["set-cookie"]
    told = (await asker.get(f"{BASE}/api/openapi.json")).json()
    assert told["servers"] == [{"url": BASE}]


@pytest.mark.parametrize("mount", [in_starlette, in_fastapi, by_the_command])
async def test_it_is_mounted_in(mount: object, queue: Queue, ids: dict[str, str]) -> None:
    assert callable(mount)
    async with asking(mount(create_app(queue))) as asker:
        await walk(asker, ids)
    assert await queue.is_paused()


async def test_beside_the_base_path_there_is_nothing(queue: Queue) -> None:
    async with asking(by_the_command(create_app(queue))) as asker:
        answer = await asker.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, f"{BASE}/")
        for path in ("/jobs", "/healthz", "/ops", f"{BASE}s"):
            assert (await asker.get(path)).status_code == 404, path
    for wrong in ("ops", "/a b", "//evil", "/a/../b?"):
        with pytest.raises(Ended):
            check_base(wrong)


DJANGO = """
import asyncio, os, re
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from jobmill import InMemoryQueue
from jobmill.dashboard import create_app
from tests.dashboard.kit import asking, fill
from tests.dashboard.test_mounting import BASE, walk

urlpatterns = [path("shop/", lambda request: HttpResponse("the shop"))]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost"], SECRET_KEY="x")
queue = InMemoryQueue()
application = Starlette(
    routes=[Mount(BASE, create_app(queue)), Mount("/", get_asgi_application())]
)

async def main():
    ids = await fill(queue)
    async with asking(application) as asker:
        assert (await asker.get("/shop/")).text == "the shop"
        await walk(asker, ids)
    await queue.close()

asyncio.run(main())
"""


def test_it_is_mounted_beside_django(tmp_path: Path) -> None:
    # In a process of its own: Django's settings are the process's.
    program = tmp_path / "program.py"
    program.write_text(DJANGO)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, program],
        check=False,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
