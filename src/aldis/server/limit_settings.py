"""The settings that limit what clients may use, each with the reason for its default (docs/limits.md).

They are a part of `server.config.ServerConfig`, which reads them like all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aldis.errors import ConfigError
from aldis.hub.settings import HubSettings
from aldis.protocol.messages import MAX_DEVICES
from aldis.server.account_settings import AccountSettings
from aldis.server.readers import read_integer, read_seconds, setting

# With fewer, clients that come at the same moment would close each other's connections.
MIN_HANDSHAKES: Final = 10
_HUB: Final = HubSettings()
# For the headers of frames, and what the server says beside that which a client has missed.
_SPARE: Final = 64 * 1024
# A client that comes back is sent all that it has missed in one go. With less it would be closed for that.
MIN_QUEUE: Final = _HUB.resume_bytes + _HUB.sealed_bytes + _SPARE
# Bytes. Less is mostly meant as gigabytes: a client and its longest message hardly fit.
_LEAST_BUDGET: Final = 1_000_000
# A limit of one, and that of all to which it belongs.
_WITHIN: Final = {
    "stun_per_address": "stun_per_second",
    "watches_per_session": "watches_per_user",
    "detached_bytes_per_user": "detached_bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings(AccountSettings):
    """The part of `ServerConfig` that limits clients. Times are in seconds, sizes in bytes.

    It has the settings of accounts as well, because a dataclass with slots has one base.
    """

    # One connection costs about 10 KB here and one file descriptor.
    max_connections: int = setting(
        10_000,
        read_integer(1, 10_000_000),
        "Connections beyond this number are refused with 503; they count as soon as they are accepted.",
    )
    # A household has ten, an office behind one address a hundred. Loopback has no limit, because proxies are there.
    connections_per_address: int = setting(
        256,
        read_integer(1, 10_000_000),
        "Connections at a time from one address (IPv6: one /64); more are refused with 429.",
    )
    # A page takes ten connections.
    connects_per_address: int = setting(
        50,
        read_integer(1, 1_000_000),
        "New connections a second from one address (IPv6: one /64); ten times as many at once.",
    )
    # As many as can register. After a restart, 20,000 may come back at once.
    connects_per_second: int = setting(
        2000,
        read_integer(1, 1_000_000),
        "New connections a second from all clients; ten times as many at once. More are refused with 503.",
    )
    # After a restart thousands connect at once, and with TLS a busy machine may speak seconds later. With 1,000, half
    # of 2,000 such clients lost their first try. Each costs 3 KB.
    handshakes: int = setting(
        5000,
        read_integer(1, 10_000_000),
        "Connections that have sent nothing yet; beyond this number the oldest one is closed.",
    )
    # A client on a bad line takes three round trips for TLS, and one for its request.
    handshake_timeout: float = setting(
        10.0,
        read_seconds(0.1, 60),
        "How long a client may take to say something, as long for TLS, and as long for its whole request.",
    )
    # Each takes up to 100 KB until it is over, one or two round trips later. A core begins a thousand a second, so this
    # is enough for round trips of a quarter to half a second. To end a thousand that break off together takes 10 ms.
    tls_handshakes: int = setting(
        500,
        read_integer(MIN_HANDSHAKES, 1_000_000),
        "TLS handshakes at a time; beyond this number the oldest one is closed.",
    )
    # Browsers send some hundred bytes, and cookies.
    partial_requests_bytes: int = setting(
        8 * 1024 * 1024,
        read_integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "Bytes that are kept for long requests which are not whole yet; beyond it, the oldest one is closed.",
    )
    # Some round trips and two signatures; enough for a phone on a bad line.
    registration_timeout: float = setting(
        30.0,
        read_seconds(1, 3600),
        "How long a client may take from its WebSocket to its registration (4004), and to sign a challenge.",
    )
    # Ten thousand clients with two peer connections each ask as often. It takes 4 % of a core.
    stun_per_second: int = setting(
        2000,
        read_integer(1, 1_000_000),
        "Answers a second on that port to all clients; twice as many at once. What comes faster gets none.",
    )
    # A peer connection asks once for each of its sockets, and again every 10 s while it lasts: an office of a hundred
    # programs behind one address takes 30. After a restart all of them ask at once.
    stun_per_address: int = setting(
        50,
        read_integer(1, 1_000_000),
        "The same to one address (IPv6: one /64); six times as many at once.",
    )
    # With the sender's address, a message goes to another client. Ours accept 1 MiB, and 1 MiB may wait for a slow
    # client.
    max_message_bytes: int = setting(
        64 * 1024, read_integer(1024, 512 * 1024, " bytes"), "The largest message that a client may send."
    )
    # A peer connection takes 10 to 30 messages at each side. A program that connects to sixty peers at once is slowed
    # down for a few seconds.
    messages_per_second: int = setting(
        200,
        read_integer(1, 1_000_000),
        "Messages a second that are read from one client; twice as many at once. What comes faster waits.",
    )
    bytes_per_second: int = setting(
        256 * 1024,
        read_integer(1024, 1_000_000_000, " bytes"),
        "Bytes a second that are read from one client; twice as many at once. What comes faster waits.",
    )
    # Four connections that send as fast as they may. More devices of one user hardly ever do so at once.
    user_messages_per_second: int = setting(
        800,
        read_integer(1, 1_000_000),
        "Messages a second from all devices of a user; twice as many at once. More are refused for a moment. "
        "At least three times messages_per_second.",
    )
    user_bytes_per_second: int = setting(
        1024 * 1024,
        read_integer(1024, 1_000_000_000, " bytes"),
        "Bytes a second from all devices of a user; twice as many at once. At least three times bytes_per_second.",
    )
    # What a user costs others, and the line: four connections that pass on as much as they may.
    user_relayed_bytes_per_second: int = setting(
        1024 * 1024,
        read_integer(1024, 1_000_000_000, " bytes"),
        "Bytes a second that are passed on to others from all devices of a user; twice as many at once. "
        "At least three times bytes_per_second.",
    )
    # A client of this project has 32 questions pending at most. A page with a hundred contacts watches them.
    user_discovers_per_second: int = setting(
        100,
        read_integer(1, 1_000_000),
        "Questions for other users (discover) a second from all devices of a user; twice as many at once.",
    )
    # Below what is read from one connection, so that sealed messages leave room for offers and answers.
    user_sealed_bytes_per_second: int = setting(
        256 * 1024,
        read_integer(1024, 1_000_000_000, " bytes"),
        "Bytes of sealed messages a second from all devices of a user; twice as many at once. More wait at the sender.",
    )
    pair_sealed_bytes_per_second: int = setting(
        128 * 1024,
        read_integer(1024, 1_000_000_000, " bytes"),
        "The same from a user to one other user.",
    )
    max_relay_file_bytes: int = setting(
        1024 * 1024,
        read_integer(0, 1_000_000_000, " bytes"),
        "The largest file that clients send in sealed messages; a larger one needs a direct path.",
    )
    # A name is bound for good, and takes 100 bytes of the disk. A class of pupils or an office that starts behind one
    # address on one day stays below this.
    new_names_per_address: int = setting(
        200,
        read_integer(0, 1_000_000_000),
        "New names that one address (IPv6: /64) may bind at once, and again in a day; 0 for any number.",
    )
    # A person does not see the difference, and a program that comes and goes without end costs each of its watchers
    # four messages a second.
    presence_interval: float = setting(
        0.25,
        read_seconds(0, 60),
        "Changes of one user's presence are told at most once in this time to each watcher, the last state in the end.",
    )
    # With more, a message about a user might exceed 64 KiB.
    devices_per_user: int = setting(
        MAX_DEVICES, read_integer(1, MAX_DEVICES), "Devices of one user that are online at a time; one more is refused."
    )
    # Enough for a person's address book. A client that comes back watches 2,000 names a second, and gives up after
    # 300 s.
    watches_per_session: int = setting(
        10_000,
        read_integer(0, 500_000),
        "Names that one session watches; more are refused. Clients are told of it.",
    )
    # Two devices may watch as much as one session may.
    watches_per_user: int = setting(
        20_000, read_integer(0, 100_000_000), "Names that all devices of one user watch together; more are refused."
    )
    # Each change of the user is told to all of them: 5,000 take 60 ms.
    watchers_per_user: int = setting(
        5000, read_integer(1, 100_000_000), "Sessions that watch one user; for one more the watch is refused."
    )
    watches_bytes: int = setting(
        256 * 1024 * 1024,
        read_integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "Bytes that are kept for all watches, some 300 for each; beyond it, new ones are refused.",
    )
    # A thousand users with full lists, or a hundred thousand with some names in them.
    privacy_bytes: int = setting(
        256 * 1024 * 1024,
        read_integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "Bytes that are kept for the contacts and blocked users of those online; beyond it, more are refused.",
    )
    # An address book has some hundreds of names. All names of both lists have 48 KiB at most, whatever this is, so that
    # every client can read a reply with all of them.
    privacy_names_per_user: int = setting(
        1000,
        read_integer(0, 10_000),
        "Contacts of a user, and as many blocked users; more are refused, and so are more than 48 KiB of names.",
    )
    # A program with a wrong host or key stops by itself. An office behind one address may have some of them.
    failed_proofs_per_address: int = setting(
        60,
        read_integer(0, 1_000_000),
        "Failed proofs of names from one address (IPv6: /64), at once and in an hour; 0 for any number.",
    )
    failed_proofs_per_name: int = setting(
        60,
        read_integer(0, 1_000_000),
        "Failed proofs of one name in an hour, after which addresses that have failed before are refused; 0 for any.",
    )
    # A client that signs wrongly has a fault that another try does not mend.
    failed_proofs_per_connection: int = setting(
        3,
        read_integer(1, 1_000_000),
        "Wrong signatures and tokens on one connection, after which it is closed (4501).",
    )
    # All else has limits of its own; this one is for all of it together.
    memory_budget: int = setting(
        0,
        read_integer(0, 10**15, " bytes"),
        "Bytes that are kept for all clients together; beyond, new ones are refused, and the newest and idlest are "
        "given up. 0: half of the memory of this machine or container.",
    )
    resume_window: float = setting(
        30.0,
        read_seconds(0, 3600),
        "How long a client that has lost its connection stays online, so that it can resume.",
    )
    # A client that confirms as it reads leaves a few KiB behind, so all of ten thousand may lose their network at once.
    detached_bytes: int = setting(
        64 * 1024 * 1024,
        read_integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "Bytes that are kept for clients that have lost their connection; beyond it, those with the most are given up.",
    )
    # All devices of a user together: four that have the most that is kept for one.
    detached_bytes_per_user: int = setting(
        2 * 1024 * 1024,
        read_integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "The same for all devices of one user; beyond it, the one that was lost first is given up.",
    )
    # A second of heavy traffic, and not too much for many clients.
    outgoing_queue_bytes: int = setting(
        1024 * 1024,
        read_integer(MIN_QUEUE, 1_000_000_000, " bytes"),
        "Bytes that wait for a client that reads slowly; beyond it, the client is closed (4002).",
    )
    ping_interval: float = setting(20.0, read_seconds(1, 3600), "How long a client may be silent before it is pinged.")
    # Docker kills a container 10 s after it has asked it to stop.
    drain_seconds: float = setting(8.0, read_seconds(0, 3600), "How long a graceful stop may take.")


def check_limits(settings: LimitSettings) -> None:
    """Check what belongs together. Raises `ConfigError`."""
    fewest = _HUB.resume_bytes + max(_HUB.sealed_bytes, settings.max_message_bytes) + _SPARE
    if settings.outgoing_queue_bytes < fewest:
        problem = f"with max_message_bytes = {settings.max_message_bytes}, a client that comes back may be sent"
        raise ConfigError("outgoing_queue_bytes", f"{problem} {fewest} bytes at once; set that, or more")
    if settings.hook_url and settings.registration_timeout <= settings.hook_timeout:
        problem = f"has to be longer than hook_timeout ({settings.hook_timeout:g} s)"
        raise ConfigError("registration_timeout", f"{problem}, or clients are closed while hook_url is asked")


def limit_warnings(settings: LimitSettings) -> list[str]:
    """Tell of limits that were set and limit nothing, because another one is lower; and of one that leaves no room."""
    defaults = LimitSettings.__dataclass_fields__
    budget = settings.memory_budget
    warnings = [
        f"{name} is above {other}, which holds for it too"
        for name, other in _WITHIN.items()
        if getattr(settings, name) > getattr(settings, other) and getattr(settings, name) != defaults[name].default
    ]
    if 0 < budget < _LEAST_BUDGET:
        warnings.append(f"memory_budget: {budget} bytes leave no room for clients; a gigabyte is 1000000000")
    return warnings
