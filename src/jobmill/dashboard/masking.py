"""Hides what looks secret: fields by their names, passwords in URLs by their place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, cast

HIDDEN: Final = "••••••"
"""What stands in the place of a secret."""

_PARTS: Final = frozenset(
    {
        *("password", "passwd", "pwd", "passphrase", "passcode", "secret", "secrets", "token"),
        *("tokens", "apikey", "credential", "credentials", "authorization", "auth", "cookie"),
        *("cookies", "bearer", "jwt", "otp", "pin", "cvv", "cvc", "ssn", "iban", "signature"),
    }
)
_PAIRS: Final = frozenset(
    {
        *("apikey", "privatekey", "accesskey", "secretkey", "signingkey", "encryptionkey"),
        *(
            "sessionid",
            "sessionkey",
            "cardnumber",
            "creditcard",
            "accountnumber",
            "connectionstring",
        ),
    }
)
_JOINED: Final = re.compile(r"password|passwd|secret|apikey|accesstoken|authtoken|privatekey")
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^/\s?#\"<>\\]*)@")
_DEEPEST: Final = 100


class Mask:
    """What is shown of values. `more`: names of fields that are secret, too."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._more: Final = frozenset(_plain(name) for name in more)

    def is_secret(self, name: str) -> bool:
        """Whether a field of this name looks secret."""
        words = [word.lower() for word in _WORDS.findall(name)]
        pairs = {first + second for first, second in pairwise(words)}
        plain = _plain(name)
        return bool(
            _PARTS.intersection(words)
            or _PAIRS & {*pairs, plain}
            or _JOINED.search(plain)
            or plain in self._more
        )

    def value(self, value: Any, depth: int = 0) -> Any:
        """A JSON value without its secrets."""
        if isinstance(value, str):
            return self.text(value)
        if depth > _DEEPEST:
            return HIDDEN
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            # As headers are often said: {"name": "Authorization", "value": ...}.
            told = fields.get("name", fields.get("key"))
            names = {"value": told} if isinstance(told, str) else {}
            return {
                key: HIDDEN
                if self._hides(key, each) or self._hides(names.get(key, ""), each)
                else self.value(each, depth + 1)
                for key, each in fields.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(each, depth + 1) for each in cast("list[Any]", value)]
        return value

    def _hides(self, name: str, value: Any) -> bool:
        """A flag, or nothing, gives no secret away."""
        return value not in (None, "") and not isinstance(value, bool) and self.is_secret(name)

    def text(self, text: str) -> str:
        """The text without the passwords of URLs in it."""
        return without_passwords(text)


def without_passwords(text: str) -> str:
    """The text, or the page or the JSON, without the passwords of URLs in it."""
    return _URL.sub(rf"\1{HIDDEN}@", text) if "://" in text else text


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
