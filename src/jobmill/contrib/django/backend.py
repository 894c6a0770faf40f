"""The backend of Django's tasks framework that puts tasks into jobmill's queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Warning as Doubt
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone

from jobmill.contrib.django.choices import Choices
from jobmill.contrib.django.definitions import JobmillTask, find, remember
from jobmill.contrib.django.found import AnyResult, AnyTask
from jobmill.contrib.django.queues import queue_of
from jobmill.contrib.django.results import RUN_AFTER, Arguments, enqueued, new_result, result_of
from jobmill.errors import ConfigError, DefinitionError
from jobmill.infos import info_of
from jobmill.job import Call
from jobmill.options import EnqueueOptions, check_queue_name, is_job_id
from jobmill.queue import Queue
from jobmill.records import JobInfo
from jobmill.store import Features, Store

_DEFAULT: Final = "default"


class JobmillBackend(BaseTaskBackend):
    """Tasks are jobs: as durable as their store, run by `manage.py jobmill worker`.

    OPTIONS: `url` of the store (else JOBMILL_URL); `job`, the JobOptions of all its tasks, which
    have no retries unless it says so; `transaction`: "ignore" enqueues at once, "on_commit" when
    the transaction around it commits, "join" within that transaction; `database`, whose it is;
    `modules` with tasks, beside the `tasks` of each app; and the keywords that a queue takes.
    """

    task_class: type[AnyTask] = JobmillTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, dict(params))
        self._options: Mapping[str, Any] = self.options

    def queue(self, name: str = _DEFAULT) -> Queue:
        """The jobmill queue of this name, to ask it what Django does not.

        Raises: ImproperlyConfigured where OPTIONS make none.
        """
        try:
            return queue_of(self.alias, name, self._options)
        except ConfigError as error:
            message = f"TASKS[{self.alias!r}]: {error}"
            raise ImproperlyConfigured(message) from error

    def served(self) -> list[Queue]:
        """The queues that a worker serves: those of QUEUES, or else the default one."""
        return [self.queue(name) for name in sorted(self.queues) or [_DEFAULT]]

    def validate_task(self, task: AnyTask) -> None:
        """Refuse what cannot be a job, and let the workers of this process know what can."""
        super().validate_task(task)
        try:
            check_queue_name(task.queue_name, "queue_name")
            remember(task)
        except (ConfigError, DefinitionError) as error:
            raise InvalidTask(str(error)) from error

    def enqueue(  # type: ignore[override]  # its stubs bind the result to the task's own types
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """Put the task into its queue, by what `transaction` says.

        Raises: InvalidTask; TypeError for arguments that JSON cannot say; as Queue.enqueue.
        """
        self.validate_task(task)
        choices = self._choices()
        queue = self.queue(task.queue_name)
        result = new_result(task, self.alias, list(args), dict(kwargs))
        call = remember(task).call(Arguments(args=result.args, kwargs=result.kwargs))
        options: EnqueueOptions = {"priority": -task.priority, "job_id": queue.seams.job_ids()()}
        if task.run_after is not None:
            due = task.run_after
            options["run_at"] = timezone.make_aware(due) if timezone.is_naive(due) else due
            options["metadata"] = {RUN_AFTER: due.isoformat()}
        enqueued(result, queue.name, str(options["job_id"]), None)
        connection = connections[choices.database] if choices.transaction != "ignore" else None
        if connection is None or not connection.in_atomic_block:
            self._send(queue, call, result, options)
        elif choices.transaction == "on_commit":
            # What cannot be stored is refused here, and not when the transaction commits.
            queue.new_job(call)
            send = partial(self._send, queue, call, result, options)
            transaction.on_commit(send, using=choices.database)
        else:
            tx = connection.connection if connection.vendor == "sqlite" else connection
            self._send(queue, call, result, {**options, "tx": tx})
        return result

    def get_result(self, result_id: str) -> AnyResult:
        """The result of this id, as it is now.

        Raises: TaskResultDoesNotExist where there is no record of it, or its task is none of
        this project.
        """
        name, _, job_id = str(result_id).rpartition(":")
        for each in self._asked(name):
            info = self._info(each, job_id)
            task = None if info is None else find(info.name, self._choices().modules)
            if info is not None and task is not None:
                result = result_of(info, task, self.alias)
                if result is not None:
                    return result
        raise TaskResultDoesNotExist(result_id)

    def check(self, **_: Any) -> list[CheckMessage]:
        """What is wrong with the settings of this backend."""
        return list(self._faults())

    def _choices(self) -> Choices:
        try:
            return Choices.of(self._options)
        except ConfigError as error:
            message = f"TASKS[{self.alias!r}]: {error}"
            raise ImproperlyConfigured(message) from error

    def _send(
        self, queue: Queue, call: Call[Any], result: AnyResult, options: EnqueueOptions
    ) -> None:
        handle = queue.enqueue_sync(call, **options)
        # What goes with a transaction is enqueued when that commits.
        info = None if "tx" in options else self._info(queue.name, handle.id)
        enqueued(result, queue.name, handle.id, None if info is None else info.enqueued_at)
        # Robust: it is stored, and an error of a receiver would say that it is not.
        task_enqueued.send_robust(type(self), task_result=result)

    def _asked(self, name: str) -> list[str]:
        """The queues in which a result may be; none for a name that is no queue here."""
        if not name:
            return sorted(self.queues) or [_DEFAULT]
        try:
            check_queue_name(name, "result_id")
        except ConfigError:
            return []
        return [name] if not self.queues or name in self.queues else []

    def _info(self, name: str, job_id: str) -> JobInfo | None:
        if not is_job_id("id", job_id):
            return None

        async def get(store: Store) -> JobInfo | None:
            # An id may come from anyone: it makes no queue, with a thread and connections.
            other = store if name == store.queue else store.handle(name)
            try:
                await other.open()
                (record,) = await other.get([job_id])
            finally:
                if other is not store:
                    await other.close()
            return None if record is None else info_of(record, name)

        kept = name if name in self.queues else next(iter(sorted(self.queues)), _DEFAULT)
        return self.queue(kept).ask_sync(get)

    def _faults(self) -> Iterator[CheckMessage]:
        where = f"TASKS[{self.alias!r}]"
        try:
            for name in self.queues:
                check_queue_name(name, "QUEUES")
        except ConfigError as error:
            yield Error(f"{where}: {error}", id="jobmill.E001")
            return
        try:
            choices = self._choices()
            features = self.queue(next(iter(sorted(self.queues)), _DEFAULT)).store.features
        except (ConfigError, ImproperlyConfigured) as error:
            yield Error(str(error), hint="See the page on Django.", id="jobmill.E002")
            return
        if Features.SHARED not in features:
            yield Doubt(
                f"{where}: jobs in memory are seen by no worker in another process",
                hint='Give OPTIONS a "url", such as "sqlite:///jobs.db", or set JOBMILL_URL.',
                id="jobmill.W001",
            )
        if choices.transaction != "ignore" and choices.database not in connections:
            yield Error(
                f"{where}: database: DATABASES has no {choices.database!r}", id="jobmill.E003"
            )
        elif choices.transaction == "join" and Features.TRANSACTIONS not in features:
            yield Error(
                f'{where}: transaction: this store cannot "join" one; '
                'PostgreSQL and SQLite can, and "on_commit" works with any',
                id="jobmill.E004",
            )
