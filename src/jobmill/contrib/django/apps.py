"""The Django app, for its management command."""

from __future__ import annotations

from importlib import import_module

import django
from django.apps import AppConfig


class JobmillConfig(AppConfig):
    """What INSTALLED_APPS takes for `jobmill.contrib.django`."""

    name = "jobmill.contrib.django"
    label = "jobmill"

    def ready(self) -> None:
        """Let Django know the checks of its tasks, also where no code of the project uses them."""
        if django.VERSION >= (6, 0):
            import_module("django.tasks")
