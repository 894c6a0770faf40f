"""Time zones by their IANA names."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import cache
from typing import Final

from jobmill.errors import ConfigError

_LONGEST: Final = 100
"""Characters of a name that is looked up; no zone's is longer."""


class Timezones:
    """Names of time zones that are often needed. Any other IANA name will do as well."""

    UTC: Final = "UTC"
    NEW_YORK: Final = "America/New_York"
    CHICAGO: Final = "America/Chicago"
    DENVER: Final = "America/Denver"
    LOS_ANGELES: Final = "America/Los_Angeles"
    SAO_PAULO: Final = "America/Sao_Paulo"
    LONDON: Final = "Europe/London"
    PARIS: Final = "Europe/Paris"
    BERLIN: Final = "Europe/Berlin"
    MOSCOW: Final = "Europe/Moscow"
    DUBAI: Final = "Asia/Dubai"
    KOLKATA: Final = "Asia/Kolkata"
    SINGAPORE: Final = "Asia/Singapore"
    HONG_KONG: Final = "Asia/Hong_Kong"
    SHANGHAI: Final = "Asia/Shanghai"
    TOKYO: Final = "Asia/Tokyo"
    SYDNEY: Final = "Australia/Sydney"
    MELBOURNE: Final = "Australia/Melbourne"
    AUCKLAND: Final = "Pacific/Auckland"


def zone_named(name: object) -> tzinfo:
    """The zone of this name; UTC also where the machine has no zone data.

    Cost: the first time for a name, one small file is read.

    Raises: ConfigError, with the names that are near.
    """
    if name == Timezones.UTC:
        return UTC
    if not isinstance(name, str):
        message = f"timezone: {type(name).__name__} is no name; give one such as 'Europe/London'"
        raise ConfigError(message, field="timezone")
    try:
        return _zone(name[:_LONGEST])
    except (LookupError, ValueError, OSError):
        # Not there, no relative path, a folder: all the same to who misspelt it.
        raise _unknown(name) from None


@cache  # as many as there are zones; zoneinfo's own keeps eight
def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _unknown(name: str) -> ConfigError:
    from zoneinfo import available_timezones

    known = available_timezones()
    shown = repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")
    if known <= {Timezones.UTC}:
        message = (
            f"timezone: {shown} is not known, since this machine has no time zone data; "
            "pip install tzdata"
        )
        return ConfigError(message, field="timezone")
    near = _near(name[:_LONGEST], known)
    advice = f"did you mean {' or '.join(near)}?" if near else "give one such as 'Europe/London'"
    message = f"timezone: {shown} is no IANA time zone; {advice}"
    return ConfigError(message, field="timezone")


def _near(name: str, known: set[str]) -> list[str]:
    """Names that are this one but for case, spaces, its continent, or a slip."""
    from difflib import get_close_matches

    wanted = name.strip().replace(" ", "_").lower()
    full = {zone.lower(): zone for zone in sorted(known)}
    if wanted in full:
        return [full[wanted]]
    city = wanted.rpartition("/")[2]
    same = [zone for zone in sorted(known) if city and zone.lower().rpartition("/")[2] == city]
    if same:
        return same[:3]
    cities = {zone.lower().rpartition("/")[2]: zone for zone in sorted(known)}
    near = [full[match] for match in get_close_matches(wanted, full, n=2, cutoff=0.8)]
    return near or [cities[match] for match in get_close_matches(city, cities, n=2, cutoff=0.8)]
