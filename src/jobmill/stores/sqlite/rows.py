"""What the columns of a job hold, as values."""

from __future__ import annotations

import msgspec

from jobmill.errors import PayloadError
from jobmill.policy import Policy, decode_policy

_STRINGS = msgspec.json.Decoder(dict[str, str])
_ANY_POLICY = Policy()


def policy_of(column: bytes) -> Policy:
    """The policy of a job; the default one where it does not decode.

    One damaged row must not keep a claim from the jobs beside it.
    """
    try:
        return decode_policy(column)
    except PayloadError:
        return _ANY_POLICY


def strings_of(column: bytes | None) -> dict[str, str]:
    """The metadata of a job; none where it does not decode, as above."""
    if column is None:
        return {}
    try:
        return _STRINGS.decode(column)
    except msgspec.DecodeError:
        return {}
