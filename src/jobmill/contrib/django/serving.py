"""The program that `manage.py jobmill` gives to the command line: the queues of TASKS."""

from __future__ import annotations

import django
from django.conf import settings
from django.tasks import task_backends

from jobmill.contrib.django.backend import JobmillBackend
from jobmill.contrib.django.choices import Choices
from jobmill.contrib.django.definitions import discover
from jobmill.queue import Queue

PROGRAM = "jobmill.contrib.django.serving"


def queues() -> dict[str, Queue]:
    """The queues of all backends that are jobmill's, by alias and name; their tasks are known."""
    found: dict[str, Queue] = {}
    for alias in settings.TASKS:
        backend = task_backends[alias]
        if isinstance(backend, JobmillBackend):
            discover(Choices.of(backend.options).modules)
            found.update({f"{alias}_{queue.name}": queue for queue in backend.served()})
    return found


# A process of its own, as those of --processes are, begins here and not in manage.py.
django.setup()
globals().update(queues())
