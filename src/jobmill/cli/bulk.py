"""One change of many jobs: by their ids, or of all that are of a status and a name."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.command import STDIN
from jobmill.cli.ending import Ended, Exit, say
from jobmill.cli.output import Form, print_json, write
from jobmill.cli.text import one_line
from jobmill.queue import Queue
from jobmill.records import JobStatus
from jobmill.store import Query, State, Store

Flag: Final[Parameter] = Parameter(negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Sure:
    """Whether a change is really meant."""

    dry_run: Annotated[bool, Flag, Parameter(help="Only say how many it would be.")] = False
    yes: Annotated[bool, Flag, Parameter(name=("--yes", "-y"), help="Do not ask.")] = False

    def of(self, what: str) -> bool:
        """Whether to go on; where there is a terminal, it is asked.

        Raises: Ended where there is none, and nothing was said.
        """
        if self.yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Ended(Exit.USAGE, f"{what}: there is no terminal to ask; say --yes or --dry-run")
        sys.stderr.write(f"{one_line(what)}? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Bulk(Sure):
    """Which jobs, where no ids are given."""

    status: Annotated[JobStatus | None, Parameter(help="In the place of ids: all of these.")] = None
    job: Annotated[str | None, Parameter(help="In the place of ids: all of this name.")] = None
    all: Annotated[bool, Flag, Parameter(help="In the place of ids: all that can be.")] = False

    @property
    def given(self) -> bool:
        """Whether it says which jobs."""
        return self.status is not None or self.job is not None or self.all


def many(
    verb: str,
    ids: Sequence[str],
    asked: Asked,
    bulk: Bulk,
    form: Form,
    *,
    one: Callable[[Queue, str], Awaitable[bool]],
    why_not: str,
    all_of: Callable[[Queue], Awaitable[int]] | None = None,
    states: tuple[State, ...] = (),
) -> int:
    """Do it to the jobs of these ids, or to all that the words say; the exit code.

    3 where one of the ids could not be changed; the others are.
    """
    if bool(ids) == bulk.given:
        how = "ids or --status, --job or --all" if all_of else "ids"
        raise Ended(Exit.USAGE, f"ID: say which jobs to {verb}: {how}, and not both")
    if ids == (STDIN,):
        ids = sys.stdin.read().split()
    # Ids that were asked for may turn out to be none; that is never all jobs.
    if all_of is not None and bulk.given:
        return ask(asked, lambda queue: _all(queue, verb, bulk, form, all_of, states))
    return ask(asked, lambda queue: _each(queue, verb, ids, bulk, form, one, why_not))


async def _each(
    queue: Queue,
    verb: str,
    ids: Sequence[str],
    bulk: Bulk,
    form: Form,
    one: Callable[[Queue, str], Awaitable[bool]],
    why_not: str,
) -> Exit:
    if bulk.dry_run:
        _report(form, verb, count=len(ids), done=False)
        return Exit.DONE
    done: list[str] = []
    left: list[str] = []
    for each in ids:
        (done if await one(queue, each) else left).append(each)
    if form.json or form.jsonl:
        print_json({"done": done, "left": left})
    elif form.quiet:
        write("".join(f"{one_line(each)}\n" for each in done))
    else:
        _report(form, verb, count=len(done), done=True)
    for each in left:
        say(f"{each} {why_not}")
    return Exit.NOT_FOUND if left else Exit.DONE


async def _all(
    queue: Queue,
    verb: str,
    bulk: Bulk,
    form: Form,
    all_of: Callable[[Queue], Awaitable[int]],
    states: tuple[State, ...],
) -> Exit:
    wanted = states if bulk.status is None else (bulk.status,)
    query = Query(states=wanted, name=bulk.job)

    async def count(store: Store) -> int:
        return sum((await store.counts(query)).states.values())

    number = await queue.ask(count)
    if bulk.dry_run:
        _report(form, verb, count=number, done=False)
        return Exit.DONE
    if number and not bulk.of(bulk_text(verb, number, queue)):
        return Exit.FAILED
    _report(form, verb, count=await all_of(queue), done=True)
    return Exit.DONE


def _report(form: Form, verb: str, *, count: int, done: bool) -> None:
    if form.json or form.jsonl:
        print_json({"count": count, "dry_run": not done})
    elif form.quiet:
        write(f"{count}\n")
    else:
        jobs = "1 job" if count == 1 else f"{count:,} jobs"
        write(f"{jobs}: {verb} done\n" if done else f"{jobs}: {verb} not done, by --dry-run\n")


def bulk_text(verb: str, number: int, queue: Queue) -> str:
    """What is asked."""
    jobs = "1 job" if number == 1 else f"{number:,} jobs"
    return f"{verb} {jobs} of the queue {queue.name} in {queue.store.place}"
