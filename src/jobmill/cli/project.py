"""`jobmill init`: writes a small project that works as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from jobmill.cli.ending import Ended, Exit
from jobmill.cli.output import Form, print_json, write
from jobmill.cli.text import one_line

Kind = Literal["sqlite", "redis", "postgresql"]

_SUFFIX: Final = ".tmpl"
_START: Final = """\
Start the server in a container of its own, and say where it is:

```sh
cp .env.example .env
docker compose up --detach {service}
set -a && . ./.env && set +a
```

"""
_WORDS: Final[Mapping[Kind, Mapping[str, str]]] = {
    "sqlite": {
        "url": "sqlite:///jobs.db",
        "place": "the SQLite file `jobs.db`",
        "extras": "fast",
        "data": " && mkdir /data && chown app /data",
        "with_server": "",
        "start_server": "",
        "scale": ", all of them on this machine: the file is on it",
    },
    "redis": {
        "url": "redis://localhost:6379/0",
        "place": "Redis",
        "extras": "fast,redis",
        "data": "",
        "with_server": ", with a Redis server",
        "start_server": _START.format(service="redis"),
        "scale": "",
    },
    "postgresql": {
        "url": "postgresql://localhost/app",
        "place": "PostgreSQL",
        "extras": "fast,postgres",
        "data": "",
        "with_server": ", with a PostgreSQL server",
        "start_server": _START.format(service="postgres"),
        "scale": "",
    },
}
"""What stands in the templates in double braces, beside the name of the project."""

_NEXT: Final = """
next:
  cd {directory}
  python -m venv .venv && . .venv/bin/activate
  pip install -e ".[dev]"
  pytest
README.md there says the rest
"""


def init(
    directory: Annotated[
        str, Parameter(help="Where to write it; its name is that of the project.")
    ] = ".",
    *,
    store: Annotated[Kind, Parameter(help="Where the project keeps its jobs.")] = "sqlite",
    dry_run: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Only say which files it would write."),
    ] = False,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Write a project: jobs, a web app, tests, a Dockerfile and what runs it.

    It has a schedule, a FastAPI app that enqueues, tests that need no server, a compose file
    with the web app, a worker and the server of the store, a unit of systemd and a README.md.
    A file that is there already is never overwritten: then it writes nothing, with exit code 5.
    """
    root = Path(directory)
    texts = project(root, store)
    _refuse_what_is_there(root, texts)
    if not dry_run:
        _write(root, texts)
    names = sorted(texts)
    if form.json or form.jsonl:
        print_json({"directory": directory, "store": store, "files": names, "dry_run": dry_run})
    elif form.quiet:
        write("".join(f"{name}\n" for name in names))
    else:
        would = "would be " if dry_run else ""
        write("".join(f"{one_line(str(root / name))}: {would}written\n" for name in names))
        if not dry_run:
            write(_NEXT.format(directory=one_line(directory)))


def project(root: Path, store: Kind) -> dict[str, str]:
    """The texts of the project's files, by their paths in it."""
    words = {**_WORDS[store], "name": _name(root)}
    templates = files("jobmill.cli") / "templates"
    return {
        path.removesuffix(_SUFFIX): _filled(text, words)
        for folder in ("project", store)
        for path, text in _templates(templates / folder)
    }


def _templates(folder: Traversable, under: str = "") -> Iterator[tuple[str, str]]:
    for each in folder.iterdir():
        path = f"{under}{each.name}"
        if each.is_dir():
            yield from _templates(each, f"{path}/")
        else:
            yield path, each.read_text(encoding="utf-8")


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], text)


def _name(root: Path) -> str:
    """A name that a package, a unit and a user of a machine may have."""
    plain = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")
    return plain if re.match("[a-z]", plain) else "-".join(filter(None, ("app", plain)))


def _refuse_what_is_there(root: Path, texts: Mapping[str, str]) -> None:
    """Return where nothing is in the way.

    Raises: Ended, which names what is.
    """
    if root.exists() and not root.is_dir():
        raise Ended(Exit.USAGE, f"DIRECTORY: {root} is a file; give a folder, or a new name")
    # A link that leads nowhere is there, too.
    there = [path for path in (root / name for name in sorted(texts)) if path.is_symlink()]
    there += [path for path in (root / name for name in sorted(texts)) if path.exists()]
    if there:
        are = f"and {len(there) - 1} more are" if there[1:] else "is"
        raise Ended(
            Exit.CONFLICT,
            f"{there[0]} {are} there already, and nothing was written; give another directory",
        )


def _write(root: Path, texts: Mapping[str, str]) -> None:
    """Write them all; where that fails, no file of them stays.

    Raises: Ended.
    """
    with ExitStack() as undone:
        try:
            for name, text in texts.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    undone.callback(path.unlink)
                    file.write(text)
        except OSError as error:
            what = f"{error.filename or root}: {error.strerror or error}"
            raise Ended(Exit.FAILED, f"nothing was written: {what}") from error
        undone.pop_all()
