"""Where a job is defined, so that a child process can define it too."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, assert_never

import msgspec

from jobmill.errors import DefinitionError
from jobmill.job import JobDefinition
from jobmill.registry import described, lookup

_MAIN: Final = ("__main__", "__mp_main__")
_AS_MAIN: Final = "__mp_main__"
"""What the parent's `__main__` is called in a child, so that its guard holds."""


class Imported(msgspec.Struct, frozen=True, tag=True):
    """A module to import."""

    module: str


class Script(msgspec.Struct, frozen=True, tag=True):
    """The file that the parent was started with; `path` as the system has it."""

    path: bytes


class MainModule(msgspec.Struct, frozen=True, tag=True):
    """The module that the parent was started with, by `python -m`."""

    module: str


Origin = Imported | Script | MainModule


def origin_of(definition: JobDefinition[Any, Any]) -> Origin:
    """What a child process has to load to know this job; taken from the definition alone.

    Raises: DefinitionError where there is nothing that it could load.
    """
    name = _home(definition)
    if name not in _MAIN:
        return Imported(name)
    main = sys.modules.get(name)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        if spec.name.rpartition(".")[2] == "__main__":
            raise _homeless(definition, "is defined in a __main__.py, which is there to run")
        return MainModule(spec.name)
    path: str | None = getattr(main, "__file__", None)
    if path is None or not Path(path).is_file():
        raise _homeless(definition, "is not defined in a file")
    return Script(os.fsencode(Path(path).absolute()))


def handler_name(definition: JobDefinition[Any, Any]) -> str:
    """The handler's name, to see that parent and child mean the same."""
    handler = definition.handler
    name: str = getattr(handler, "__qualname__", None) or type(handler).__qualname__
    return name


def load(origin: Origin, name: str, handler: str) -> JobDefinition[Any, Any]:
    """The job of this name, after loading what defines it.

    Raises: DefinitionError where that fails, or defines no such job.
    """
    where = _where(origin)
    try:
        _load(origin)
    except (Exception, SystemExit) as error:
        message = f"a child process could not load {where}: {type(error).__name__}: {error}"
        raise DefinitionError(message) from error
    definition = lookup(name)
    if definition is None:
        message = (
            f"{where} defines no job {name!r} where a child process loads it; "
            'a job with executor="process" has to be defined at the top level of a module'
        )
        raise DefinitionError(message)
    if handler_name(definition) != handler:
        message = (
            f"the job {name!r} is {handler} in the worker, but {described(definition.handler)} "
            f"in a child process that loads {where}; give them different names"
        )
        raise DefinitionError(message)
    return definition


def refuse_while_loading() -> None:
    """End a script that starts a worker where it is only loaded by a child process.

    Each child would run a worker with children of its own, and so on without an end.
    """
    if _main.loading:
        message = (
            "the script starts a worker also where it is only loaded; "
            'put what starts it under: if __name__ == "__main__":'
        )
        # An exit gets out of any event loop that the script started; an error would not.
        raise SystemExit(message)


class _Main:
    """The parent's `__main__`, as this process knows it."""

    def __init__(self) -> None:
        self.loading = False
        self.loaded = False

    def load(self, run: Callable[[], dict[str, Any]]) -> None:
        if self.loaded:
            return
        self.loading = True
        try:
            names = run()
        finally:
            self.loading = False
        module = ModuleType(_AS_MAIN)
        module.__dict__.update(names)
        sys.modules["__main__"] = sys.modules[_AS_MAIN] = module
        self.loaded = True


_main: Final = _Main()


def _load(origin: Origin) -> None:
    match origin:
        case Imported(module):
            importlib.import_module(module)
        case Script(path):
            _main.load(lambda: runpy.run_path(os.fsdecode(path), run_name=_AS_MAIN))
        case MainModule(module):
            _main.load(lambda: runpy.run_module(module, run_name=_AS_MAIN, alter_sys=True))
        case _:
            assert_never(origin)


def _where(origin: Origin) -> str:
    return os.fsdecode(origin.path) if isinstance(origin, Script) else f"module {origin.module}"


def _home(definition: JobDefinition[Any, Any]) -> str:
    """The name of the module that makes the definition when it is loaded."""
    of_handler: object = getattr(definition.handler, "__module__", None)
    if isinstance(of_handler, str) and _holds(sys.modules.get(of_handler), definition):
        return of_handler
    # define_job may be given a function of another module, or a partial, which has none.
    holders = [name for name, each in tuple(sys.modules.items()) if _holds(each, definition)]
    # A script that took the job from a module has it too, but the module is less to load.
    holders.sort(key=lambda name: name in _MAIN)
    if holders:
        return holders[0]
    if isinstance(of_handler, str):
        return of_handler
    raise _homeless(definition, "is held by no module")


def _holds(module: object, definition: JobDefinition[Any, Any]) -> bool:
    # Not everything in sys.modules is a module; what stands in for one may do anything when asked.
    if not isinstance(module, ModuleType):
        return False
    return any(each is definition for each in tuple(vars(module).values()))


def _homeless(definition: JobDefinition[Any, Any], why: str) -> DefinitionError:
    message = (
        f"the job {definition.name!r} {why}, so no child process can load it; "
        'move it to a module of its own, or leave executor="process" out'
    )
    return DefinitionError(message)
