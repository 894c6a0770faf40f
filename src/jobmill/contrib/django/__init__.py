"""jobmill as a backend of Django's own tasks framework (Django 6.0 and later, Python 3.12).

    INSTALLED_APPS = [..., "jobmill.contrib.django"]
    TASKS = {
        "default": {
            "BACKEND": "jobmill.contrib.django.JobmillBackend",
            "OPTIONS": {"url": "postgresql://localhost/app"},
        }
    }

`manage.py jobmill worker` runs what was enqueued; `manage.py jobmill …` is the whole command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobmill.contrib.django.backend import JobmillBackend as JobmillBackend
    from jobmill.contrib.django.definitions import JobmillTask as JobmillTask

__all__ = ["JobmillBackend", "JobmillTask"]


def __getattr__(name: str) -> Any:
    # Django imports this package before its settings are ready, and 5.2 has no tasks at all.
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import django

    if django.VERSION < (6, 0):
        message = (
            f"{name} needs Django 6.0 or later, which has django.tasks; this is Django "
            f"{django.get_version()}. There, use jobmill by itself: enqueue_sync(...)"
        )
        raise ImportError(message)
    from jobmill.contrib.django import backend, definitions

    return getattr(backend, name, None) or getattr(definitions, name)
