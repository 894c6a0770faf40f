"""`jobmill schedules …`: asks for the schedules of a queue, and steers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

from cyclopts import Parameter

from jobmill.cli.asking import Asked, ask
from jobmill.cli.bulk import Sure
from jobmill.cli.command import part
from jobmill.cli.ending import Ended, Exit, say
from jobmill.cli.output import Column, Form, plain, print_json, print_lines, show, show_one, write
from jobmill.cli.text import ago, one_line
from jobmill.cron import CronExpression
from jobmill.errors import CronError, UnknownJob
from jobmill.plans import Plans
from jobmill.queue import Queue
from jobmill.schedule import Schedule
from jobmill.scheduler import Scheduler

app: Final = part("schedules", "List, pause, resume, trigger, remove, sync schedules.")

Name = Annotated[str, Parameter(name="NAME", help="The schedule.")]
Names = Annotated[str, Parameter(name="NAME", help="Schedules.")]


class Tick(NamedTuple):
    """A coming tick of a schedule."""

    schedule: str
    at: datetime


def _status(schedule: Schedule) -> str:
    if schedule.paused:
        return "paused"
    return "ended" if schedule.next_run is None else ""


_COLUMNS: Final[tuple[Column[Schedule], ...]] = (
    Column("schedule", lambda each: each.name),
    Column("job", lambda each: each.job_name),
    Column("when", lambda each: each.description, gives=True),
    Column("zone", lambda each: each.timezone),
    Column("next", lambda each: _in_zone(each.next_run) or _status(each)),
    Column("last", lambda each: ago(each.last_run)),
    Column("runs", lambda each: each.runs, right=True),
)


@app.command(name="list")
def list_schedules(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """List the schedules of the queue, by name."""
    found = ask(asked, lambda queue: Scheduler(queue).get_scheduled_jobs())
    show(form, "schedules", found, _COLUMNS, key=lambda each: each.name, none="no schedules")


@app.command(name="next")
def next_runs(
    *names: Names,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    count: Annotated[int, Parameter(help="So many of each.")] = 5,
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Tell when schedules tick next, in their own zone; all of them, if none is named."""
    if count < 1:
        raise Ended(Exit.USAGE, f"--count: {count} will not do; give 1 or more")
    found = ask(asked, lambda queue: Scheduler(queue).get_scheduled_jobs())
    by_name = {each.name: each for each in found}
    for name in names:
        if name not in by_name:
            raise Ended(Exit.NOT_FOUND, f"no schedule is called {name!r}")
    wanted = [by_name[name] for name in names] or found
    ticks = [Tick(each.name, at) for each in wanted for at in _coming(each, count)]
    ticks.sort(key=lambda tick: tick.at)
    columns: tuple[Column[Tick], ...] = (
        Column("schedule", lambda tick: tick.schedule),
        Column("at", lambda tick: _in_zone(tick.at)),
        Column("", lambda tick: ago(tick.at)),
    )
    if form.json:
        print_json({"ticks": [plain(tick._asdict()) for tick in ticks]})
    elif form.jsonl:
        print_lines(plain(tick._asdict()) for tick in ticks)
    else:
        show(form, "ticks", ticks, columns, key=lambda tick: tick.at.isoformat(), none="no ticks")


@app.command
def pause(
    *names: Names,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Let schedules tick no more until they are resumed."""
    return _each("pause", names, asked, form, lambda scheduler, name: scheduler.pause(name))


@app.command
def resume(
    *names: Names,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Let schedules tick again; what fell into the pause is not made up."""
    return _each("resume", names, asked, form, lambda scheduler, name: scheduler.resume(name))


@app.command
def remove(
    *names: Names,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    sure: Sure = Sure(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Remove schedules with their histories; their jobs stay."""
    if names and not sure.dry_run and not sure.of(f"remove {', '.join(names)}"):
        return Exit.FAILED
    if sure.dry_run:
        return _each("remove", names, asked, form, _is_there, done=False)
    return _each("remove", names, asked, form, lambda scheduler, name: scheduler.unschedule(name))


@app.command
def trigger(
    name: Name,
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> None:
    """Add a schedule's job now, off the clock, and print its id."""

    async def fire(queue: Queue) -> tuple[str, bool]:
        try:
            handle = await Scheduler(queue).trigger(name)
        except UnknownJob as error:
            if error.job_id is None:
                raise
            # It is in the queue; only this process does not know what it does.
            return error.job_id, False
        return handle.id, handle.deduplicated

    job_id, there = ask(asked, fire)
    show_one(form, {"id": job_id, "deduplicated": there}, job_id, key=job_id)


@app.command
def sync(
    *,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
    sure: Sure = Sure(),  # noqa: B008  it is frozen
    form: Form = Form(),  # noqa: B008  it is frozen
) -> int:
    """Write what the app declares by @scheduler.cron, and remove what it no longer does.

    It says which schedulers it sees in the app. Where none of them declares schedules of this
    queue it refuses with exit code 2 and removes nothing: they may only not be seen from there,
    since it takes a scheduler that stands in the module, or is imported into it. Schedules that
    the program wrote by `schedule` are left alone.
    """
    queue = asked.made()
    theirs = _declaring(asked.app, queue)
    declared = sorted({name for each in theirs.values() for name in each.declared})

    async def write_them(queue: Queue) -> tuple[list[str], bool]:
        stale = await queue.ask(lambda store: _stale(store, declared))
        _say_seen(form, theirs)
        if sure.dry_run:
            return stale, False
        if stale and not sure.of(f"remove {', '.join(stale)}, which {asked.app} no longer has"):
            return stale, False
        for each in theirs.values():
            scheduler = each.on(queue)
            await scheduler.start()
            await scheduler.stop()
        for name in stale:
            await Scheduler(queue).unschedule(name)
        return stale, True

    stale, done = ask(queue, write_them, makes=True)
    if not done and not sure.dry_run:
        return Exit.FAILED
    if form.quiet:
        write("".join(f"{name}\n" for name in (*declared, *stale)))
    elif form.json or form.jsonl:
        by = {name: sorted(each.declared) for name, each in theirs.items()}
        changed = {"written": declared, "removed": stale, "dry_run": sure.dry_run}
        print_json({**changed, "declared_by": by})
    else:
        would = "" if done else "would be "
        write("".join(f"{one_line(name)}: {would}written\n" for name in declared))
        write("".join(f"{one_line(name)}: {would}removed\n" for name in stale))
    return Exit.DONE


def _declaring(app: str | None, queue: Queue) -> dict[str, Scheduler]:
    """The app's schedulers that declare schedules of this queue, by their names there.

    Raises: Ended where there are none.
    """
    from jobmill.cli.loading import load

    if app is None:
        raise Ended(Exit.USAGE, "--app: say which program declares schedules, as in --app app.py")
    own = (queue.name, queue.store.place)
    seen = load(app).schedulers
    found = {
        name: each
        for name, each in seen.items()
        # The same queue may be there as another object.
        if each.declared and (each.queue.name, each.queue.store.place) == own
    }
    if not found:
        # They may only not be seen from here; that must not remove them all.
        others = "; ".join(_told(name, each) for name, each in seen.items())
        raise Ended(
            Exit.USAGE,
            f"{app}: no scheduler in it declares schedules of the queue {queue.name} in "
            f"{queue.store.place} ({others or 'it has no scheduler'}); import the one that does, "
            "or remove schedules by: jobmill schedules remove",
        )
    return found


def _say_seen(form: Form, theirs: Mapping[str, Scheduler]) -> None:
    """Tell people what is seen, before they are asked whether the rest is to go."""
    if not (form.json or form.jsonl or form.quiet):
        for name, each in theirs.items():
            say(_told(name, each))


def _told(name: str, scheduler: Scheduler) -> str:
    what = ", ".join(sorted(scheduler.declared)) or "nothing"
    queue = scheduler.queue
    return f"{name}, a scheduler of {queue.name} in {queue.store.place}, declares {what}"


async def _stale(store: Any, declared: list[str]) -> list[str]:
    """The schedules that some code declared, and this one does not."""
    names: list[str] = []
    plans = Plans(store, threads=True)
    for doc in await plans.docs():
        try:
            plan = await plans.decoded(doc)
        except ValueError:
            # Whoever can read it may say what it is.
            continue
        if plan.declared and doc.key not in declared:
            names.append(doc.key)
    return names


async def _is_there(scheduler: Scheduler, name: str) -> bool:
    return any(each.name == name for each in await scheduler.get_scheduled_jobs())


def _each(
    verb: str,
    names: tuple[str, ...],
    asked: Asked,
    form: Form,
    do: Callable[[Scheduler, str], Awaitable[bool]],
    *,
    done: bool = True,
) -> int:
    """Do it to each; the exit code is 3 where one is not there."""
    if not names:
        raise Ended(Exit.USAGE, f"NAME: say which schedules to {verb}")

    async def all_of_them(queue: Queue) -> list[str]:
        scheduler = Scheduler(queue)
        return [name for name in names if await do(scheduler, name)]

    found = ask(asked, all_of_them)
    left = [name for name in names if name not in found]
    if form.json or form.jsonl:
        print_json({"done": found if done else [], "left": left})
    elif form.quiet:
        write("".join(f"{name}\n" for name in found))
    else:
        write("".join(f"{name}: {verb} {'done' if done else 'not done'}\n" for name in found))
    if left:
        raise Ended(Exit.NOT_FOUND, f"no schedule is called {', '.join(map(repr, left))}")
    return Exit.DONE


def _coming(schedule: Schedule, count: int) -> list[datetime]:
    """The next ticks, as far as the schedule's own limits allow them."""
    at = schedule.next_run
    left = count
    if schedule.max_runs is not None:
        left = min(count, schedule.max_runs - schedule.runs)
    ticks: list[datetime] = []
    while at is not None and len(ticks) < left:
        ticks.append(at)
        if schedule.cron is None:
            break
        try:
            at = CronExpression(schedule.cron).next(at, schedule.timezone)
        except CronError:
            break
        if schedule.end_date is not None and at > schedule.end_date:
            break
    return ticks


def _in_zone(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S %z")
