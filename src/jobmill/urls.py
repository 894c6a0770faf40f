"""URLs that name a store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import parse_qsl, unquote

from jobmill.errors import ConfigError

_URL: Final = re.compile(r"([a-z]+)(\+[a-z]+)?://", re.ASCII)
_ALIASES: Final = {"rediss": "redis", "unix": "redis", "postgres": "postgresql"}
"""Schemes whose store has another name."""


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store's URL, taken apart; its text is never shown with its password.

    `backend` is the folder of the store: the scheme up to a plus sign, or what it stands for.
    """

    backend: str
    scheme: str
    place: str = field(repr=False)
    """What stands between the slashes: host, port, user and password."""
    path: str = field(repr=False)
    """What follows, unquoted, without the first slash."""
    settings: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    @classmethod
    def parse(cls, text: object) -> Self:
        """Take the URL apart.

        Raises: ConfigError where it is none.
        """
        if not isinstance(text, str):
            message = f"url: {type(text).__name__} is no text; give one such as sqlite:///jobs.db"
            raise ConfigError(message, field="url")
        match = _URL.match(text)
        if match is None:
            message = f"url: {masked(text)!r} is no URL; give one such as sqlite:///jobs.db"
            raise ConfigError(message, field="url")
        if not text.isprintable() or "#" in text:
            message = f"url: {masked(text)!r} has a character that a URL writes as %23 or alike"
            raise ConfigError(message, field="url")
        # By hand: urlsplit refuses a list of servers of which some are in brackets.
        named, _, query = text[match.end() :].partition("?")
        place, _, quoted = named.partition("/")
        try:
            path = unquote(quoted, errors="strict")
        except ValueError:
            # Python's own message would show the password.
            message = f"url: {masked(text)!r} cannot be read"
            raise ConfigError(message, field="url") from None
        if "@" in query:
            # It may be the rest of a password, so nothing of it is shown.
            message = "url: there is an @ after the ?; write @ as %40, and in a password ? as %3F"
            raise ConfigError(message, field="url")
        settings: dict[str, str] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key in settings:
                message = f"url: the setting {key!r} is given twice"
                raise ConfigError(message, field="url")
            settings[key] = value
        scheme = match[0].removesuffix("://")
        return cls(_ALIASES.get(match[1], match[1]), scheme, place, path, settings)

    def refuse_settings_but(self, *known: str) -> None:
        """ConfigError for the first setting that is none of the `known`."""
        for setting in self.settings:
            if setting not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                message = f"url: {self.scheme}:// has no setting {setting!r}; {takes}"
                raise ConfigError(message, field="url")


def masked(url: str) -> str:
    """The URL without its user, its password and its settings."""
    head, at, rest = url.rpartition("@")
    if at:
        scheme = _URL.match(head)
        head = f"{scheme[0] if scheme else ''}***@"
    return head + rest.partition("?")[0]
