"""What is kept beside a payload, read so that one damaged job keeps no other from a worker."""

from __future__ import annotations

from typing import Final

import msgspec

from jobmill.errors import PayloadError
from jobmill.policy import Policy, decode_policy

_STRINGS: Final = msgspec.json.Decoder(dict[str, str])
_ANY_POLICY: Final = Policy()


def policy_of(data: bytes) -> Policy:
    """The policy of a job; the default one where it does not decode."""
    try:
        return decode_policy(data)
    except PayloadError:
        return _ANY_POLICY


def metadata_of(data: bytes | None) -> dict[str, str]:
    """The metadata of a job; none where it has none, or where they do not decode."""
    if data is None:
        return {}
    try:
        return _STRINGS.decode(data)
    except msgspec.DecodeError:
        return {}
