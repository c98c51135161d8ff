"""HTTP requests of the server to its operator's own servers: the keys of tokens, and the operator's application.

Rules: only URLs of the settings are asked. Redirects are not followed, replies are bounded, and no proxy, cookie or
password of the environment is used, so no reply leads anywhere else. Nothing blocks the event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import aiohttp

# Connections that are kept to one server, beside the limits of the callers.
_MOST_CONNECTIONS: Final = 100


class CallFailed(Exception):
    """A request has got no usable reply; the text says why, for the operator."""


class HttpCalls:
    """Makes requests. `close` when nothing asks any more."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, *, most: int, seconds: float) -> bytes:
        """The reply to a GET, of `most` bytes at most. Raises `CallFailed`."""
        return await self._call("GET", url, None, {"Accept": "application/json"}, most, seconds)

    async def post(self, url: str, body: bytes, headers: dict[str, str], *, most: int, seconds: float) -> bytes:
        """The reply to a POST of JSON. Raises `CallFailed`, also for each status but 200 to 299."""
        return await self._call("POST", url, body, {"Content-Type": "application/json", **headers}, most, seconds)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(
        self, method: str, url: str, body: bytes | None, headers: dict[str, str], most: int, seconds: float
    ) -> bytes:
        import aiohttp  # takes a third of the start time, and not every server makes calls

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                # A compressed reply could be a thousand times larger than what came.
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "aldis"},
            )
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await _ask(self._session, method, url, body, headers, most)
                except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                    # A kept connection may have ended just now: the other side was started again, or had kept it long
                    # enough. aiohttp itself repeats a GET, and no POST, because that may come twice: ours may.
                    if method == "GET":
                        raise
                    return await _ask(self._session, method, url, body, headers, most)
        except TimeoutError:
            raise CallFailed(f"it does not answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallFailed(_in_words(error)) from None


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes | None, headers: dict[str, str], most: int
) -> bytes:
    from aiohttp import ClientTimeout

    async with session.request(
        method, url, data=body, headers=headers, allow_redirects=False, timeout=ClientTimeout()
    ) as reply:
        text = await _read(reply.content, most)
        if not 200 <= reply.status < 300:
            raise CallFailed(f"it answers with the status {reply.status}")
        return text


def _in_words(error: Exception) -> str:
    """What has gone wrong, without the innards of aiohttp in it."""
    import aiohttp

    if not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return str(error) or type(error).__name__
    where = f"{f'[{error.host}]' if ':' in error.host else error.host}:{error.port}"
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            reason = str(getattr(cause, "verify_message", "") or cause)
            return f"the certificate of {where} cannot be trusted: {reason}"
        case aiohttp.ClientConnectorSSLError(os_error=cause):
            reason = str(getattr(cause, "reason", "") or cause).lower().replace("_", " ")
            return f"{where} does not speak TLS as it should: {reason}"
    cause = error.os_error
    # asyncio has words of its own for a connection that is refused; a name that is not found has its own numbers.
    known = cause.errno is not None and not isinstance(cause, socket.gaierror)
    reason = os.strerror(cause.errno) if known and cause.errno else cause.strerror or str(cause)
    return f"{where} cannot be reached: {reason}"


async def _read(content: aiohttp.StreamReader, most: int) -> bytes:
    parts: list[bytes] = []
    left = most + 1
    while left > 0 and (part := await content.read(left)):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise CallFailed(f"its reply has more than {most} bytes")
    return b"".join(parts)
