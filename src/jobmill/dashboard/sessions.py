"""Who a browser was: a signed cookie, and the token that its forms carry."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from jobmill.errors import ConfigError

LASTS: Final = 12 * 3_600
"""Seconds after which somebody has to log in again."""

_LEAST: Final = 16
_MOST_ENDED: Final = 10_000


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A browser's session. `user` is None before login; `stamp` is that of the user's password."""

    id: str
    made_at: int
    user: str | None = None
    stamp: str = ""
    flash: str = ""


class Sessions:
    """Makes sessions, and knows its own again.

    `secret` signs them; processes that share it know each other's.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._ended: dict[str, None] = {}

    def new(self, user: str | None = None, stamp: str = "") -> Session:
        """A session under an id that nobody has had."""
        made_at = int(time.time())
        return Session(id=secrets.token_urlsafe(18), made_at=made_at, user=user, stamp=stamp)

    def end(self, session_id: str) -> None:
        """Know this one no more."""
        self._ended.pop(session_id, None)
        while len(self._ended) >= _MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session_id] = None

    def is_over(self, session: Session) -> bool:
        """Whether somebody ended it."""
        return session.id in self._ended

    def seal(self, session: Session) -> str:
        """What the cookie says."""
        body = _text(msgspec.json.encode(session))
        return f"{body}.{self._sign('session', body)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None where it is none of ours, or over."""
        body, dot, signature = (cookie or "").partition(".")
        if not dot or not hmac.compare_digest(
            self._sign("session", body).encode(), signature.encode(errors="replace")
        ):
            return None
        try:
            session = _SESSION.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except ValueError:
            return None
        old = not 0 <= time.time() - session.made_at + 60 <= LASTS + 60
        return None if old or self.is_over(session) else session

    def token(self, session: Session) -> str:
        """What forms of this session carry."""
        return self._sign("csrf", session.id)

    def is_token(self, session: Session, token: str) -> bool:
        """Whether it is that."""
        return hmac.compare_digest(self.token(session).encode(), token.encode(errors="replace"))

    def _sign(self, purpose: str, text: str) -> str:
        data = f"{purpose}\n{text}".encode(errors="replace")
        return _text(hmac.new(self._secret, data, hashlib.sha256).digest())


def read_secret(path: str | os.PathLike[str]) -> bytes:
    """The secret of a file, which is made where it is not there.

    Raises: ConfigError where it cannot be read or made, or is too short.
    """
    place = Path(path)
    try:
        if not place.exists():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(place, flags, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
        secret = place.read_bytes().strip()
    except OSError as error:
        message = f"secret_file: {place} cannot be read or made: {error}"
        raise ConfigError(message, field="secret_file") from error
    if len(secret) < _LEAST:
        message = f"secret_file: {place} has fewer than {_LEAST} bytes; remove it, and it is made"
        raise ConfigError(message, field="secret_file")
    return secret


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_SESSION: Final = msgspec.json.Decoder(Session)
