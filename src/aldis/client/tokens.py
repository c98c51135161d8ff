"""The token that a client registers with: a fixed one, or one that the program gets anew before each registration.

Rules: a token is a secret, so no text has any part of it, and no part of what a program's function raised. It knows
neither the server nor what is in a token.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aldis.errors import ConfigError, TokenUnavailable
from aldis.protocol.messages import MAX_TOKEN

TokenProvider: TypeAlias = Callable[[], Awaitable[str] | str]
"""A function of the program that gets a token, mostly from its own server. It is called before each registration."""


class TokenSource:
    """The token of one client. Raises `ConfigError` for what can be none."""

    def __init__(self, given: str | TokenProvider | None) -> None:
        self._provider: TokenProvider | None = None
        self._token = ""
        if isinstance(given, str) or not callable(given):
            if given is not None:
                self._token = _checked(given)
        else:
            self._provider = given

    @property
    def token(self) -> str | Callable[[], str] | None:
        """For the machine: the fixed token, a function that returns the newest one, or None."""
        return self._token or None if self._provider is None else lambda: self._token

    async def renew(self, seconds: float) -> None:
        """Get a token for the next registration, if there are several. Raises `TokenUnavailable`."""
        if self._provider is None:
            return
        try:
            async with asyncio.timeout(seconds):
                found = self._provider()
                self._token = _checked(await found if inspect.isawaitable(found) else found)
        except TimeoutError:
            raise TokenUnavailable(f"the program gave none within {seconds:g} s") from None
        except ConfigError as error:
            raise TokenUnavailable(error.problem) from None
        except Exception as error:
            raise TokenUnavailable(f"the program raised {type(error).__name__}") from error


def _checked(token: object) -> str:
    if not isinstance(token, str):
        raise ConfigError("token", f"it is no text, but {type(token).__name__}")
    try:
        size = len(token.encode())
    except UnicodeEncodeError:
        raise ConfigError("token", "it has a lone surrogate, which UTF-8 cannot carry") from None
    if size > MAX_TOKEN:
        raise ConfigError("token", f"it has more than {MAX_TOKEN} bytes")
    return token
