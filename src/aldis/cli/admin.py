"""`aldis admin`: what an operator does with a running server."""

from __future__ import annotations

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from aldis.cli.admin_client import AdminArguments, AdminClient, AdminRefused, add_admin
from aldis.cli.exits import ExitCode, complain
from aldis.cli.options import UNITS, check_names, names_action, time_span, user_name, utf8
from aldis.cli.parser import Parser, run_command
from aldis.cli.text import safe_line, shown_name, typed_name

_HELP: Final = """\
Usage: aldis admin COMMAND [options]

Look at a running server, and act on its users. It asks the server's admin port.

Commands
  stats        Show the server at a glance.
  users        List the users that are online.
  user         Show one user's sessions and key.
  disconnect   Close all connections of a user, which may come back.
  ban          Ban a user, a key or a network.
  unban        End a ban.
  bans         List all bans.
  release      Free a name whose owner has lost the key.
  names        List, add and remove names that may register.
  certificate  Show the server's certificate, or have it renewed now.
  turn         Show the TURN server beside it, or give that a new secret.
  log-level    Log more or less, until the server starts or reloads.
  drain        Stop the server in order: clients are told when to come back.

Options
  -h, --help   Show this text; `aldis admin COMMAND --help` tells more.

Examples
  aldis admin users
  aldis admin ban user mallory --reason "spam" --for 7d
  aldis admin ban network 203.0.113.0/24
  aldis admin certificate renew

Exit codes
  0    all went well
  2    wrong usage, or a file that cannot be used
  3    the server cannot be reached
  4    the server refused, mostly because the name belongs to another key
"""
_CODES: Final = (ExitCode.OK, ExitCode.USAGE, ExitCode.SERVER_UNREACHABLE, ExitCode.REFUSED)
_MOST_LISTED: Final = 1000


class Arguments(AdminArguments):
    """The arguments of these commands."""

    json: bool
    name: str
    kind: str
    value: str
    reason: str
    seconds: float | None
    level: str
    prefix: str
    action: str
    yes: bool


def run(arguments: Sequence[str]) -> int:
    """Run `aldis admin` with these arguments and return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "stats": _stats,
        "users": _users,
        "user": _user,
        "disconnect": _disconnect,
        "ban": _ban,
        "unban": _unban,
        "bans": _bans,
        "release": _release,
        "names": _names,
        "certificate": _certificate,
        "turn": _turn,
        "log-level": _log_level,
        "drain": _drain,
    }
    try:
        return run_command("aldis admin", _HELP, commands, arguments)
    except AdminRefused as error:
        complain(safe_line(f"{error}; --yes does it all the same" if error.status == 409 else str(error)))
        return ExitCode.USAGE if error.status == 400 else ExitCode.REFUSED


def _parser(command: str, usage: str, text: str) -> Parser:
    parser = Parser(f"aldis admin {command}", f"{usage} [options]".strip(), text, codes=_CODES)
    parser.options.add_argument("--json", action="store_true", help="Print the server's answer as JSON.")
    return parser


def _parsed(parser: Parser, words: Sequence[str]) -> tuple[Arguments, AdminClient]:
    add_admin(parser)
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    return arguments, AdminClient(arguments)


def _show(arguments: Arguments, answer: dict[str, Any], lines: Sequence[str]) -> int:
    for line in [json.dumps(answer)] if arguments.json else lines:
        print(safe_line(line))
    return ExitCode.OK


# --- looking --------------------------------------------------------------------------------------------------------


def _stats(words: Sequence[str]) -> int:
    arguments, client = _parsed(_parser("stats", "", "Show the server at a glance."), words)
    found = client.ask("GET", "/statistics")
    memory = found["memory"]
    rows = [
        ("version", found["version"]),
        ("up for", duration(found["uptime"])),
        ("users online", found["users"]),
        ("connections", found["connections"]),
        ("lost, may resume", found["detached"]),
        ("waiting for their turn", found["waiting"]),
        ("messages relayed", found["relayed"]),
        ("bytes of sealed ones", found["sealedBytes"]),
        ("messages handled", found["messages"]),
        ("messages refused", found["refused"]),
        ("times throttled", found["throttled"]),
        ("bans", found["bans"]),
        ("memory", "unknown" if memory is None else f"{memory / 2**20:.0f} MiB"),
        ("processor time", duration(found["processorSeconds"])),
        ("certificate", _expiry(found["certificate"])),
        ("TURN server", _turn_state(found)),
        *((one["limit"], f"{one['effect']}: {one['count']}") for one in found["limits"]),
        *(
            (f"node {node['node']}", f"{node['users']} users, {node['connections']} connections, on {node['host']}")
            for node in found.get("nodes", ())
        ),
    ]
    width = max(24, *(len(name) + 2 for name, _ in rows))
    lines = [f"{name:<{width}}{value}" for name, value in rows]
    return _show(arguments, found, [*lines, *(f"! {problem}" for problem in found["problems"])])


def _users(words: Sequence[str]) -> int:
    parser = _parser("users", "[PREFIX]", "List the users that are online, by name.")
    parser.argument("prefix", "Only names that begin so.", convert=utf8, optional=True)
    arguments, client = _parsed(parser, words)
    users: list[dict[str, Any]] = []
    silent: dict[str, Any] = {}
    after: str | None = ""
    while after is not None:
        query = {"prefix": arguments.prefix or "", "after": after, "limit": str(_MOST_LISTED)}
        page = client.ask("GET", "/users", query=query)
        users += page["users"]
        if "silentNodes" in page:
            silent = {"silentNodes": sorted({*silent.get("silentNodes", ()), *page["silentNodes"]})}
        after = page["next"]
    lines = [f"{shown_name(user['user'])}{_devices(user)}" for user in users]
    nobody = "nobody is online" + (f" whose name begins with {arguments.prefix}" if arguments.prefix else "")
    return _show(arguments, {"users": users, **silent}, [*(lines or [nobody]), *_silent(silent)])


def _user(words: Sequence[str]) -> int:
    parser = _parser("user", "NAME", "Show the key of one user's name, and its sessions, the newest first.")
    parser.argument("name", "The user.", convert=_user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("GET", f"/users/{quote(arguments.name, safe='')}")
    lines = []
    binding = found.get("binding")
    for session in found["sessions"]:
        state = "connected" if session["connected"] else "lost, may resume"
        where = f", at node {session['node']}" if "node" in session else ""
        # Seldom another key than the name's: when that has changed just now, or cannot be read.
        key = session.get("key")
        with_key = (
            f", with the key {key} ({session['fingerprint']})" if key and key != (binding or {}).get("key") else ""
        )
        lines.append(
            f"{session['device']:<20} {state} for {duration(session['seconds'])}, "
            f"silent for {duration(session['silent'])}, watches {session['watches']}, "
            f"{session['unconfirmed']} messages unconfirmed ({session['unconfirmedBytes']} bytes){where}{with_key}"
        )
    lines = lines or [f"{shown_name(arguments.name)} is not online"]
    if "binding" in found:  # the directory has answered
        shown = binding or {"key": "none: whoever registers the name next has it", "fingerprint": "none"}
        lines = [f"{name:<13}{shown[name]}" for name in ("key", "fingerprint")] + lines
    return _show(arguments, found, [*lines, *_silent(found)])


def _bans(words: Sequence[str]) -> int:
    arguments, client = _parsed(_parser("bans", "", "List all bans."), words)
    found = client.ask("GET", "/bans")
    lines = []
    for ban in found["bans"]:
        left = None if ban["until"] is None else ban["until"] - time.time()
        ends = "for ever" if left is None else f"for {duration(max(0, left))} more"
        lines.append(f"{ban['kind']:<8} {_shown_value(ban)}  {ends}" + (f"  {ban['reason']}" if ban["reason"] else ""))
    return _show(arguments, found, lines or ["there are no bans"])


def _devices(user: dict[str, Any]) -> str:
    """How many devices a user has, and at which nodes of a cluster."""
    nodes = user.get("nodes", {})
    if len(nodes) > 1:
        return "  (" + ", ".join(f"{_counted(count, 'device')} at {node}" for node, count in nodes.items()) + ")"
    return f"  ({user['devices']} devices)" if user["devices"] > 1 else ""


def _silent(found: dict[str, Any]) -> list[str]:
    """What an answer says about nodes of a cluster that have not answered."""
    return [f"! the node {node} has not answered" for node in found.get("silentNodes", ())]


def _expiry(certificate: dict[str, Any] | None) -> str:
    if certificate is None:
        return "none: no TLS here"
    if certificate["expires"] is None:
        return "none yet"
    now = time.time()
    left = certificate["expires"] - now
    source = "ordered by the server" if certificate["source"] == "acme" else "from files"
    if left <= 0:
        return f"expired, {source}"
    if (starts := certificate["from"]) is not None and now < starts:
        return f"not valid before {time.strftime('%Y-%m-%d %H:%M', time.gmtime(starts))} UTC, {source}"
    return f"valid for {duration(left)} more, {source}"


def _turn_state(found: dict[str, Any]) -> str:
    turn, checks = found["turn"], found.get("turnChecks", [])  # a server of an older release has none
    if turn is None:
        return "; ".join(_relays(checks)) or "none run by this server"
    return f"{'up' if turn['up'] else 'down'}, started again {_counted(turn['restarts'], 'time')}"


def _relays(checks: list[dict[str, Any]]) -> list[str]:
    """What each TURN server answered that the server asks."""
    return [
        f"{one['server']} " + (f"does not relay: {one['problem']}" if one["problem"] else "relays") for one in checks
    ]


def _certificate(words: Sequence[str]) -> int:
    text = (
        "Show the certificate of the server. With `renew`, have the server order a new\n"
        "one now: it does that by itself in time, if it has acme_domain."
    )
    parser = _parser("certificate", "[renew]", text)
    parser.argument("action", "`renew`: order a certificate now.", convert=_one_of("renew"), optional=True)
    arguments, client = _parsed(parser, words)
    if arguments.action:
        found = client.ask("POST", "/certificate/renew")
        return _show(arguments, found, [f"a certificate for {', '.join(found['ordered'])} is being ordered"])
    found = client.ask("GET", "/statistics")["certificate"]
    if found is None:
        return _show(arguments, {"certificate": None}, ["the server speaks no TLS"])
    rows = [
        ("names", ", ".join(found["names"]) or "none"),
        ("issuer", found["issuer"] or "none"),
        ("state", _expiry(found)),
        ("next order", _at(found["nextAttempt"])),
        ("problem", found["problem"] or "none"),
    ]
    return _show(arguments, found, [f"{name:<12}{value}" for name, value in rows])


def _turn(words: Sequence[str]) -> int:
    text = (
        "Show the TURN server that the server runs, or those that it asks (turn_check).\n"
        "With `rotate`, give its own one a new secret; credentials that clients have\n"
        "already are good until they expire."
    )
    parser = _parser("turn", "[rotate]", text)
    parser.argument("action", "`rotate`: make a new secret.", convert=_one_of("rotate"), optional=True)
    arguments, client = _parsed(parser, words)
    if arguments.action:
        found = client.ask("POST", "/turn/rotate")
        until = _at(found["earlierSecretUntil"])
        return _show(arguments, found, [f"the TURN server has a new secret; the earlier one is taken until {until}"])
    statistics = client.ask("GET", "/statistics")
    found, checks = statistics["turn"], statistics.get("turnChecks", [])
    if found is None:
        lines = _relays(checks) or ["the server runs no TURN server (turn_server), and asks none (turn_check)"]
        return _show(arguments, {"turn": None, "turnChecks": checks}, lines)
    allocation, until = found["allocation"], found["earlierSecretUntil"]
    # The last answer may be from before it went down.
    relays = f"{allocation['problem'] or 'yes'}," if found["up"] else "no, the server is down;"
    rows = [
        ("state", _turn_state(statistics)),
        ("URLs", ", ".join(found["urls"])),
        ("relays", f"{relays} asked {_at(allocation['at'])}"),
        (
            "earlier secret",
            f"taken until {_at(until)}" if until else "none",
        ),
    ]
    return _show(arguments, found, [f"{name:<16}{value}" for name, value in rows])


def _at(seconds: float | None) -> str:
    return "unknown" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _one_of(word: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text != word:
            raise ArgumentTypeError(f"{text!r} is not known here; expected {word}, or nothing")
        return text

    return read


# --- doing ----------------------------------------------------------------------------------------------------------


def _disconnect(words: Sequence[str]) -> int:
    text = "Close all connections of a user. Its programs may come back; `ban` keeps them out."
    parser = _parser("disconnect", "NAME", text)
    parser.argument("name", "The user.", convert=_user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("POST", f"/users/{quote(arguments.name, safe='')}/disconnect")
    ended = f"{shown_name(arguments.name)}: {_counted(found['sessions'], 'session')} ended"
    return _show(arguments, found, [ended, *_silent(found)])


def _release(words: Sequence[str]) -> int:
    text = (
        "Free a name, whose owner has lost the key for instance. Its connections are closed,\n"
        "and whoever registers the name next has it."
    )
    parser = _parser("release", "NAME", text)
    parser.argument("name", "The name.", convert=_user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("POST", f"/users/{quote(arguments.name, safe='')}/release")
    said = "is free now" if found["released"] else "is free already: no key is bound to that name"
    return _show(arguments, found, [f"{shown_name(arguments.name)} {said}", *_silent(found)])


def _names(words: Sequence[str]) -> int:
    text = (
        "The names that may register on a server with --name-policy closed. `remove` also\n"
        "ends the sessions of the name; its key stays bound to it, see `release`."
    )
    parser = _parser("names", "(list | add NAME | remove NAME)", text)
    parser.argument("action", "list, add or remove.", convert=names_action)
    parser.argument("name", "The name.", convert=_user_name, optional=True)
    arguments, client = _parsed(parser, words)
    check_names(parser, arguments.action, arguments.name)
    if arguments.action == "list":
        return _show_names(arguments, client)
    path = f"/names/{quote(arguments.name, safe='')}"
    if arguments.action == "add":
        found = client.ask("PUT", path)
        said = "may register now" if found["added"] else "was on the list already"
        policy = client.ask("GET", "/statistics")["accounts"]["namePolicy"]
        unused = [f"the list counts with name_policy = closed only; here it is {policy}"] if policy != "closed" else []
        return _show(arguments, found, [f"{shown_name(arguments.name)} {said}", *unused])
    found = client.ask("DELETE", path)
    said = "may not register any more" if found["removed"] else "was not on the list"
    said = f"{shown_name(arguments.name)} {said}; {_counted(found['sessions'], 'session')} ended"
    return _show(arguments, found, [said, *_silent(found)])


def _show_names(arguments: Arguments, client: AdminClient) -> int:
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = client.ask("GET", "/names", query={"after": after, "limit": str(_MOST_LISTED)})
        names += page["names"]
        after = page["next"]
    return _show(arguments, {"names": names}, [*map(shown_name, names)] or ["the list is empty"])


def _ban(words: Sequence[str]) -> int:
    text = (
        "Ban a user, a key or a network. Connections that it fits end at once, and get\n"
        "the reason. A ban is kept when the server is started again. A network wider than\n"
        "/8 (IPv6: /16), one that you or the server are in, and a ban that ends earlier\n"
        "than the one that holds need --yes."
    )
    parser = _parser("ban", "(user | key | network) VALUE", text)
    _add_ban(parser)
    parser.options.add_argument("--reason", metavar="TEXT", type=utf8, default="", help="Why; the banned are told.")
    parser.options.add_argument(
        "--for", dest="seconds", metavar="TIME", type=time_span, help="How long, such as 90s, 15m, 2h or 7d [for ever]."
    )
    parser.options.add_argument("--yes", action="store_true", help="Ban also where the server asks if you mean it.")
    arguments, client = _parsed(parser, words)
    value = _typed_value(arguments)
    body: dict[str, Any] = {"kind": arguments.kind, "value": value, "reason": arguments.reason}
    if arguments.seconds is not None:
        body["seconds"] = arguments.seconds
    if arguments.yes:
        body["confirmed"] = True
    found = client.ask("POST", "/bans", body=body)
    how_long = "for ever" if arguments.seconds is None else f"for {duration(arguments.seconds)}"
    ended = _counted(found["sessions"], "session")
    said = f"{found['kind']} {_shown_value(found)} is banned {how_long}; {ended} ended"
    warning = [f"! {found['warning']}"] if "warning" in found else []
    return _show(arguments, found, [said, *_replaced(found), *warning, *_silent(found)])


def _replaced(found: dict[str, Any]) -> list[str]:
    """What an answer says about the ban whose place the new one has."""
    if "replaced" not in found:
        return []
    until, reason = found["replaced"]["until"], found["replaced"]["reason"]
    ends = "for ever" if until is None else f"for {duration(max(0, until - time.time()))} more"
    return [f"it takes the place of a ban {ends}" + (f" ({reason})" if reason else "")]


def _unban(words: Sequence[str]) -> int:
    parser = _parser("unban", "(user | key | network) VALUE", "End a ban.")
    _add_ban(parser)
    arguments, client = _parsed(parser, words)
    ban = {"kind": arguments.kind, "value": _typed_value(arguments)}
    found = client.ask("DELETE", "/bans", query=ban)
    said = "is banned no more" if found["removed"] else "was not banned"
    return _show(arguments, found, [f"{arguments.kind} {_shown_value(ban)} {said}", *_silent(found)])


def _log_level(words: Sequence[str]) -> int:
    parser = _parser("log-level", "LEVEL", "Log from this level up, until the server starts or reloads.")
    parser.argument(
        "level", "debug, info, warning or error, by area: tls=debug, or both: info,tls=debug.", convert=utf8
    )
    arguments, client = _parsed(parser, words)
    found = client.ask("PUT", "/log-level", body={"level": arguments.level})
    return _show(arguments, found, [f"the server logs from {found['level']} up"])


def _drain(words: Sequence[str]) -> int:
    text = (
        "Stop the server in order: clients are told when to come back. What watches it,\n"
        "such as systemd, starts it again: for good, stop it there."
    )
    arguments, client = _parsed(_parser("drain", "", text), words)
    return _show(arguments, client.ask("POST", "/drain"), ["the server stops"])


def _add_ban(parser: Parser) -> None:
    parser.argument("kind", "What VALUE is: user, key (base64) or network.", convert=str)
    parser.argument(
        "value", "A name, a public key (see `aldis admin user`), or a network such as 203.0.113.0/24.", convert=utf8
    )


def _user_name(text: str) -> str:
    return user_name(typed_name(text))


def _typed_value(arguments: Arguments) -> str:
    return typed_name(arguments.value) if arguments.kind == "user" else arguments.value


def _shown_value(ban: dict[str, Any]) -> str:
    value: str = ban["value"]
    return shown_name(value) if ban["kind"] == "user" else value


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time for people, in its two largest units."""
    left = int(seconds)
    if left < 60:
        return f"{left} s"
    parts: list[str] = []
    for unit in "dhms":
        count, left = divmod(left, UNITS[unit])
        if parts:  # one more, if it says anything
            return " ".join([*parts, f"{count} {unit}"] if count else parts)
        if count:
            parts.append(f"{count} {unit}")
    return parts[0]
