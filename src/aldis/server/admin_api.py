"""The admin API: HTTP and JSON around `administration`, for `aldis admin` and for programs.

Every request carries `Authorization: Bearer TOKEN`. One table (`_ROUTES`) says which paths there are and what they
take. The OpenAPI document at /api/v1/openapi.json is made from it, and needs no token.

Errors are `{"error": "in words"}` with 400 (a wrong value), 401, 403 (no token is set), 404, 409 (ask again with
`confirmed`, if you mean it), 413, 503 (the directory cannot do it now).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aiohttp import web

from aldis.backends.base import DirectoryUnavailable
from aldis.errors import UsageError
from aldis.hub.bans import KINDS
from aldis.server.administration import Administration, Unconfirmed
from aldis.server.logs import Log, Throttle
from aldis.server.node_administration import MOST_LISTED
from aldis.version import VERSION

PREFIX: Final = "/api/v1"
MAX_BODY: Final = 16 * 1024

_Result: TypeAlias = "dict[str, Any] | Awaitable[dict[str, Any]]"
_Handler: TypeAlias = "Callable[[Administration, _Values], _Result]"

_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 1}
_SECONDS: Final = {"type": "number", "exclusiveMinimum": 0}
_KEY: Final = {"type": ["string", "null"], "description": "A public key in base64, as POST /bans takes it."}
_KEYS: Final = {"key": _KEY, "fingerprint": {"type": ["string", "null"]}}
_KIND: Final = {"type": "string", "enum": list(KINDS)}


class _Values:
    """The values of one request, by name, checked against what the route takes."""

    def __init__(self, values: dict[str, object], source: str) -> None:
        self._values = values
        self.source = source
        """The address of the client."""

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise UsageError(f"{name} is a text")
        return value

    def count(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        try:
            number = int(str(value))
        except ValueError:
            number = 0
        if number < 1:
            raise UsageError(f"{name} is a whole number from 1 on")
        return number

    def seconds(self, name: str) -> float | None:
        value = self._values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"{name} is a number of seconds")
        return value

    def flag(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"{name} is true or false")
        return value


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    summary: str
    handler: _Handler
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    body: dict[str, dict[str, Any]] = field(default_factory=dict)
    required: tuple[str, ...] = ()  # of the body
    answer: dict[str, dict[str, Any]] = field(default_factory=dict)  # what is worth naming of it


_ROUTES: Final = (
    _Route(
        "GET",
        "/statistics",
        "The server at a glance; in a cluster the sum of all nodes, and each of them.",
        lambda a, v: a.statistics(),
    ),
    _Route(
        "GET",
        "/users",
        f"The users that are online, by name, at most {MOST_LISTED} at a time.",
        lambda a, v: a.users(v.text("prefix", ""), v.text("after", ""), v.count("limit", 100)),
        query={"prefix": _TEXT, "after": _TEXT, "limit": _COUNT},
    ),
    _Route(
        "GET",
        "/users/{user}",
        "One user's sessions with their public keys, in a cluster with the node of each, and the key of the name.",
        lambda a, v: a.user(v.text("user")),
        answer={
            "binding": {
                "type": ["object", "null"],
                "description": "The key that the name is bound to; missing when the directory cannot answer.",
                "properties": _KEYS,
            },
            "sessions": {"type": "array", "items": {"type": "object", "properties": _KEYS}},
        },
    ),
    _Route(
        "POST",
        "/users/{user}/disconnect",
        "Close all connections of a user, which may come back.",
        lambda a, v: a.disconnect(v.text("user")),
    ),
    _Route(
        "POST",
        "/users/{user}/release",
        "Free a name: whoever registers it next has it.",
        lambda a, v: a.release(v.text("user")),
    ),
    _Route(
        "GET",
        "/names",
        f"The names that may register where only those on the list may, at most {MOST_LISTED} at a time.",
        lambda a, v: a.listed(v.text("after", ""), v.count("limit", 100)),
        query={"after": _TEXT, "limit": _COUNT},
    ),
    _Route(
        "PUT",
        "/names/{user}",
        "Put a name on the list of those that may register.",
        lambda a, v: a.list_name(v.text("user")),
    ),
    _Route(
        "DELETE",
        "/names/{user}",
        "Take a name off the list; its key stays bound to it.",
        lambda a, v: a.unlist_name(v.text("user")),
    ),
    _Route("GET", "/bans", "All bans that hold.", lambda a, v: a.bans()),
    _Route(
        "POST",
        "/bans",
        "Ban a user, a key (base64) or a network, for some seconds or for ever. 409: a very wide network, one that you "
        "or the server are in, or a ban that ends earlier than the one that holds; `confirmed` bans all the same.",
        lambda a, v: a.ban(
            v.text("kind"),
            v.text("value"),
            v.text("reason", ""),
            v.seconds("seconds"),
            confirmed=v.flag("confirmed"),
            source=v.source,
        ),
        body={"kind": _KIND, "value": _TEXT, "reason": _TEXT, "seconds": _SECONDS, "confirmed": _FLAG},
        required=("kind", "value"),
        answer={
            "replaced": {
                "type": "object",
                "description": "The ban whose place this one has taken; missing when there was none.",
                "properties": {"reason": _TEXT, "until": {"type": ["number", "null"]}},
            },
        },
    ),
    _Route(
        "DELETE",
        "/bans",
        "End a ban.",
        lambda a, v: a.unban(v.text("kind"), v.text("value")),
        query={"kind": _KIND, "value": _TEXT},
    ),
    _Route(
        "PUT",
        "/log-level",
        "Log from this level up, in all (`debug`) or in an area (`tls=debug`), until the server starts or reloads.",
        lambda a, v: a.log_level(v.text("level")),
        body={"level": _TEXT},
        required=("level",),
    ),
    _Route(
        "POST",
        "/certificate/renew",
        "Order a certificate now (acme_domain); /statistics tells what became of it.",
        lambda a, v: a.renew(),
    ),
    _Route(
        "POST",
        "/turn/rotate",
        "Make a new secret for the TURN server; the earlier one is taken until its credentials expire.",
        lambda a, v: a.health.rotate(),
    ),
    _Route("POST", "/drain", "Stop the server in order, as on SIGTERM.", lambda a, v: a.drain()),
)


class AdminApi:
    """The routes, to be added to the application of the admin port."""

    def __init__(self, administration: Administration, token: str | None, log: Log) -> None:
        self._administration = administration
        self._token = token
        self._log = log
        self._wrong = Throttle(10.0)

    def add_to(self, app: web.Application) -> None:
        """Add all routes."""
        app.router.add_get(f"{PREFIX}/openapi.json", self._document)
        for route in _ROUTES:
            app.router.add_route(route.method, PREFIX + route.path, self._served(route))

    def _served(self, route: _Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            try:
                result = route.handler(self._administration, await _values(request, route))
                return web.json_response(result if isinstance(result, dict) else await result)
            except Unconfirmed as error:
                return _error(409, str(error))
            except UsageError as error:
                return _error(400, str(error))
            except web.HTTPRequestEntityTooLarge:
                return _error(413, f"a request has at most {MAX_BODY} bytes")
            except DirectoryUnavailable as error:
                return _error(503, str(error))

        return serve

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._token is None:
            return _error(403, "this server keeps nothing and has no admin_token: set one to use the admin API")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # aiohttp keeps bytes that are no UTF-8 as halves of surrogate pairs.
        shown = given.strip().encode(errors="surrogateescape")
        if scheme.lower() == "bearer" and hmac.compare_digest(shown, self._token.encode()):
            return None
        unlogged = self._wrong.pass_now()
        if unlogged is not None:
            self._log.warning("an admin request without the right token", unlogged_before=unlogged)
        response = _error(401, "the admin token is missing or wrong")
        response.headers["WWW-Authenticate"] = 'Bearer realm="aldis"'
        return response

    async def _document(self, request: web.Request) -> web.Response:
        return web.json_response(openapi())


async def _values(request: web.Request, route: _Route) -> _Values:
    values: dict[str, object] = dict(request.match_info)
    given: dict[str, object] = dict(request.query)
    takes = route.query
    if route.body:
        takes = route.body
        body = await _body(request)
        try:
            read = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise UsageError("the body is no JSON") from None
        if not isinstance(read, dict):
            raise UsageError("the body is a JSON object")
        given = read
    unknown = sorted(set(given) - set(takes))
    if unknown:
        raise UsageError(f"{unknown[0]} is not known here; expected {', '.join(takes) or 'nothing'}")
    return _Values({**values, **given}, request.remote or "")


async def _body(request: web.Request) -> bytes:
    """All of the body, which may come in pieces."""
    size, body = request.content_length or 0, b""
    while size <= MAX_BODY:
        piece = await request.content.read(MAX_BODY + 1 - len(body))
        if not piece:
            return body
        body += piece
        size = max(size, len(body))
    raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=size)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API."""
    paths: dict[str, dict[str, Any]] = {}
    for route in _ROUTES:
        in_path = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in in_path]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in route.query.items()]
        answer = {"type": "object"} | ({"properties": route.answer} if route.answer else {})
        operation: dict[str, Any] = {
            "summary": route.summary,
            "responses": {
                "200": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
                "default": {
                    "description": "Why not.",
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "properties": {"error": _TEXT}, "required": ["error"]}
                        }
                    },
                },
            },
        }
        if parameters:
            operation["parameters"] = parameters
        if route.body:
            schema = {"type": "object", "properties": route.body, "required": list(route.required)}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Aldis admin API", "version": VERSION},
        "security": [{"token": []}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    }
