from __future__ import annotations

import inspect

import pytest

from jobmill import errors

TREE = {
    "ConfigError": {"JobsError", "ValueError"},
    "CronError": {"ConfigError"},
    "DefinitionError": {"JobsError"},
    "PayloadError": {"JobsError", "ValueError"},
    "PayloadTooLarge": {"PayloadError"},
    "DuplicateJob": {"JobsError"},
    "JobNotFound": {"JobsError", "LookupError"},
    "UnknownJob": {"JobsError"},
    "JobFailed": {"JobsError"},
    "JobCancelled": {"JobsError"},
    "JobTimeout": {"JobsError", "TimeoutError"},
    "LeaseLost": {"JobsError"},
    "StoreError": {"JobsError"},
    "StoreUnavailable": {"StoreError"},
    "SchemaMismatch": {"StoreError"},
    "Unsupported": {"StoreError"},
}
RAISED = [getattr(errors, name) for name in TREE]
STEERING = [errors.Retry, errors.Snooze, errors.Cancel, errors.Fail]


def test_the_tree_is_what_users_catch_by() -> None:
    found = {
        name: {base.__name__ for base in kind.__bases__}
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.JobsError) and kind is not errors.JobsError
    }
    assert found == TREE


@pytest.mark.parametrize("kind", RAISED)
def test_the_default_message_is_the_first_line_of_the_docstring(
    kind: type[errors.JobsError],
) -> None:
    assert kind.__doc__
    assert str(kind()) == kind.__doc__.strip().splitlines()[0]
    assert str(kind("said otherwise")) == "said otherwise"


def test_data_are_attributes_with_a_default() -> None:
    error = errors.PayloadTooLarge("too large", path="$.to", size=3, limit=2)
    assert (error.path, error.size, error.limit) == ("$.to", 3, 2)
    assert errors.PayloadTooLarge().path == "$"


@pytest.mark.parametrize("kind", STEERING)
def test_a_handlers_own_except_exception_does_not_swallow_what_steers_it(
    kind: type[BaseException],
) -> None:
    assert not issubclass(kind, Exception)
