"""NetworkStore: one object with which a program talks to others by their names.

Offers, candidates, reconnects, lost messages and proofs do not show.

Rules of this module:

* One store, one user of one server, one life: after `disconnect()` a new one is needed.
* Everything happens on the loop on which `connect_to_signaling` was called.
* A fault of one peer, or of one callback, stays there.

It is the face of the package and decides little: `peers.manager` keeps the peers, `messages` carries messages,
`peers.dialer` decides when to connect, and `files` sends files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from aldis.client.backoff import CALLS, Backoff
from aldis.client.client import SignalingClient
from aldis.client.tokens import TokenProvider
from aldis.errors import (
    AldisError,
    ConfigError,
    JournalError,
    PeerConnectionFailed,
    ProtocolViolation,
    StateError,
    UsageError,
)
from aldis.identity.keys import PUBLIC_KEY_BYTES, Identity, check_fingerprint
from aldis.identity.pins import MemoryPins, Pins
from aldis.identity.seal_keys import SealKeys
from aldis.peer.connection import PeerTiming
from aldis.peer.engine import Engine
from aldis.peer.engines.catalog import load_engine
from aldis.protocol.addresses import DEFAULT_DEVICE, check_user_id, parse
from aldis.protocol.ice import read_servers
from aldis.protocol.messages import IceServer
from aldis.protocol.privacy import Visibility
from aldis.settings import check_methods, check_number, check_seconds, check_type
from aldis.store.files import disk
from aldis.store.files.disk import Readable
from aldis.store.files.transfer import Transfer
from aldis.store.journal.journal import Journal
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.journal.writer import JournalWriter
from aldis.store.messages import content
from aldis.store.messages.content import Sendable
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.mailbox import Mailbox, QueuedMessage, Reader
from aldis.store.peers.admission import Accept
from aldis.store.peers.manager import PeerManager, Setup
from aldis.store.peers.paths import PathMode
from aldis.store.peers.pinning import DirectoryPins
from aldis.store.quality import Grade, PeerQuality
from aldis.store.state import Message, PeerStats, StoreLimits, StoreState
from aldis.store.subscriptions import Callbacks, StateFeed, States

_log = logging.getLogger(__name__)


class NetworkStore:
    """Talk to other users of a signaling server, directly and privately.

    `await connect_to_signaling(url, user_id)` first; then `send`, `messages`, `connect_to_peer`, `subscribe`; at the
    end `await disconnect()`, or use it with `async with`. All of it in docs/store.md.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        pins: Pins | None = None,
        engine: str | Engine = "wrtc",
        ice_servers: Sequence[IceServer | Mapping[str, object]] | None = None,
        allow_loopback: bool | None = None,
        accept: Accept | None = None,
        limits: StoreLimits | None = None,
        backoff: Backoff | None = None,
        timing: PeerTiming | None = None,
        path: str = "auto",
        journal: Journal | Path | str | None = None,
    ) -> None:
        """Nothing is connected yet.

        `identity`: our key; a fresh one when None, so nobody will know us again. `pins`: the keys of others; kept in
        memory when None, 10,000 at most. `engine`: `wrtc`, `aiortc`, or an engine. `ice_servers`: STUN and TURN
        servers; the signaling server is asked when None. `allow_loopback`: connect through 127.0.0.1 too; when None, if
        the signaling server is on this machine. `accept(user_id, public_key)`: whether a user who calls is let in;
        everybody is when None. `limits`, `backoff` (between calls to a peer), `timing` (of peer connections): for
        those who know better than the defaults. `path`: the paths that may be used, `auto`, `direct`, `turn` or
        `relay`; see `set_path`. `journal`: a file that keeps what is queued, and what has arrived, over
        the end of the program; it is made when there is none. In memory when None or ":memory:".

        Raises `JournalError` when the journal cannot be used (`JournalInUse`: another program has it), `EngineMissing`,
        and `ConfigError` for a value that cannot be used, such as an ICE server that no engine takes; its `setting`
        names it.
        """
        if identity is not None:
            check_type("identity", identity, Identity, "an Identity")
        if pins is not None:
            check_methods("pins", pins, ("pin", "find", "accept"), "Pins")
        if not isinstance(engine, str):
            check_methods("engine", engine, ("create",), "the name of an engine, or an engine")
        if allow_loopback is not None:
            check_type("allow_loopback", allow_loopback, bool, "True, False or None")
        if accept is not None and not callable(accept):
            raise ConfigError("accept", f"{accept!r} cannot be called")
        for name, value, kind in (("limits", limits, StoreLimits), ("backoff", backoff, Backoff)):
            if value is not None:
                check_type(name, value, kind, f"a {kind.__name__}")
        if timing is not None:
            check_type("timing", timing, PeerTiming, "a PeerTiming")
        mode = _path_mode(path)
        self.identity = identity if identity is not None else Identity.generate()
        self._pins = DirectoryPins(pins if pins is not None else MemoryPins())
        self._setup = Setup(
            identity=self.identity,
            pins=self._pins,
            engine=load_engine(engine) if isinstance(engine, str) else engine,
            ice_servers=None if ice_servers is None else read_servers(ice_servers),
            allow_loopback=allow_loopback,
            accept=accept,
            limits=limits or StoreLimits(),
            backoff=backoff or CALLS,
            timing=timing,
            on_file=Callbacks(),
            on_resumed_file=Callbacks(),
            path=mode,
            journal=_journal(journal),
        )
        self._feed = StateFeed()
        most = self._setup.limits
        self._mailbox = Mailbox(most.unread_messages, most.unread_size, on_room=self._mailbox_has_room)
        self._manager = PeerManager(self._setup, self._mailbox, self._feed)
        self._closing: asyncio.Task[None] | None = None
        self._closing_journal: asyncio.Task[None] | None = None

    # --- the signaling server -------------------------------------------------------------------------------------

    async def connect_to_signaling(
        self,
        url: str,
        user_id: str,
        *,
        device: str = DEFAULT_DEVICE,
        token: str | TokenProvider | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: Path | str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Connect to the server at `url` and register as `user_id`. A lost connection comes back by itself.

        `device` tells the programs of one user apart. `token`: what the server's operator asks for, if anything; a
        text, or a function, async or not, that gets one before each registration. `ca_file`: certificates to trust,
        PEM. `backoff`: between attempts to reconnect. Raises `ServerUnreachable`, `RequestFailed` (code `key-mismatch`:
        the name belongs to another key; `token-required` and others: the server wants another token), `UsageError` for
        arguments that cannot work, `JournalError` (`JournalForeign`: the journal is of another user, device or server),
        and `StateError` when the store is or was connected. After any other error than the
        last it may be called again.
        """
        if self._is_closed():
            raise StateError("the store is closed; make a new one")
        if self._manager.signaling is not None:
            raise StateError("the store is connected to a signaling server already")
        client = SignalingClient(
            url,
            check_user_id(user_id),
            device=device,
            token=token,
            ssl_context=ssl_context,
            ca_file=ca_file,
            backoff=backoff,
            seal_keys=SealKeys(user_id, device),
        )
        try:
            await self._manager.start(client)
        except AldisError as error:
            if self._is_closed():
                raise StateError("the store was closed while it was connecting") from error
            raise

    async def disconnect(self) -> None:
        """Say goodbye to all peers, leave the server, release everything. Idempotent.

        What has not been acknowledged fails with `DeliveryFailed` (wait with `drain` first); messages that have
        arrived can still be read.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="aldis store: disconnect")
        # Shielded: whoever gives up waiting must not leave sockets open.
        await asyncio.shield(self._closing)

    def _is_closed(self) -> bool:
        return self._closing is not None

    async def _close(self) -> None:
        await self._manager.close()
        self._mailbox.close()
        journal = self._manager.journal
        if journal is not None:
            await self._close_journal(journal)
        self._pins.close()
        self._feed.close()

    async def _close_journal(self, journal: JournalWriter) -> None:
        """Let go of the journal: now, or when nobody reads any more what has arrived."""
        if self._mailbox.is_over:
            await journal.close()
            return
        loop = asyncio.get_running_loop()

        def close() -> None:
            self._closing_journal = loop.create_task(journal.close(), name="aldis store: close the journal")

        def over() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(close)  # an iterator may be collected on any thread

        self._mailbox.when_over(over)
        with suppress(JournalError):
            await journal.flush()

    async def __aenter__(self) -> NetworkStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    # --- peers ----------------------------------------------------------------------------------------------------

    async def connect_to_peer(
        self,
        address: str,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - the attempt is shared
        fingerprint: str | None = None,
    ) -> None:
        """Return when there is a direct connection to a user, or when the attempt has failed and the relay works. From
        then on the user is kept connected, whatever happens to the path.

        `address`: `user`, so that one of the user's devices is called, or `user/device` for exactly that one. Not
        needed before `send`, which connects by itself. `fingerprint`, from an invitation for instance: no key with
        another one will do, now or later, unless it is accepted (`accept_key`). Raises `PeerOffline`, `PeerUnknown`
        (nobody has this name), `PeerKeyChanged` (see `accept_key`), `FingerprintMismatch`, `ProofInvalid`,
        `PeerConnectionFailed` with a reason, after at most `timeout` seconds, in which the time does not count that the
        attempt waits for its turn or that the event loop stands still; `IdentityError` when the pins cannot be read or
        written; `TooManyPeers`, `StateError`, `InvalidAddress`, `UsageError` for a `fingerprint` that is none.
        """
        check_seconds("timeout", timeout, zero=True)
        required = None if fingerprint is None else check_fingerprint(fingerprint)
        user_id, device = parse(address)
        await self._ready().peer(user_id).connect(device, timeout, required)

    async def disconnect_from_peer(self, address: str) -> None:
        """Say goodbye to all devices of a user, or to one (`user/device`). What they have not acknowledged fails. They
        may call again, and so may we. Raises `InvalidAddress`."""
        user_id, device = parse(address)
        peer = self._manager.find(user_id)
        if peer is not None:
            reason = "disconnect_from_peer was called"
            error = PeerConnectionFailed(user_id, reason)
            goodbyes = self._manager.leave(peer, "the other side has hung up", reason, error, device)
            await asyncio.gather(*(asyncio.shield(goodbye) for goodbye in goodbyes))

    def accept_key(self, user_id: str, public_key: bytes) -> None:
        """Trust this key of a peer (32 bytes) from now on, instead of any other.

        To be called only after a person has compared fingerprints by other means: it is the one thing that keeps a
        stranger from taking the peer's place. Ends a connection that was made with another key. Raises `IdentityError`
        when the pins cannot be written; nothing has changed then.
        """
        manager = self._ready()
        check_user_id(user_id)
        if not isinstance(public_key, bytes):
            raise UsageError(f"a public key is bytes, not {type(public_key).__name__}")
        if len(public_key) != PUBLIC_KEY_BYTES:
            raise UsageError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
        manager.accept_key(user_id, public_key)

    async def watch(self, *user_ids: str) -> None:
        """Have `state.peers[...].online` of these users told from now on, without connecting to them.

        A user leaves the state again, or has `online` None, when the server does not take the watch over into a new
        session: it may have been started anew with a smaller limit of watched names. Call this again when there is
        room. Returns when the server has said how it stands. Raises `SignalingError`, `InvalidAddress`, `StateError`.
        """
        await self._ready().watch_all(user_ids)

    async def unwatch(self, *user_ids: str) -> None:
        """End that; users with whom nothing else is going on leave the state. Raises `SignalingError`, `StateError`."""
        await self._ready().unwatch_all(user_ids)

    async def block(self, *user_ids: str) -> None:
        """Have nothing to do with these users any more, on any device of ours, until `unblock`.

        Takes effect here at once: connections end, what waits for these users fails with `DeliveryFailed`, calls of
        theirs get no answer, and `send` and `connect_to_peer` raise `PeerBlocked`. Then the server is told, which keeps
        it: to these users we are offline from then on. When that fails, this raises `SignalingError`. The block then
        holds here until `unblock` or the end of the store, which tells the server again whenever it registers. Raises
        `InvalidAddress`, `UsageError`, `StateError`.
        """
        await self._ready().block(user_ids)

    async def unblock(self, *user_ids: str) -> None:
        """End that. Raises `SignalingError`, `InvalidAddress`, `StateError`."""
        await self._ready().unblock(user_ids)

    async def add_contacts(self, *user_ids: str) -> None:
        """Count these users as contacts, on all devices of ours (see `set_visibility`). Raises as `set_visibility`."""
        await self._ready().change_privacy(add_contacts=user_ids)

    async def remove_contacts(self, *user_ids: str) -> None:
        """End that. Raises as `set_visibility`."""
        await self._ready().change_privacy(remove_contacts=user_ids)

    async def set_visibility(self, *, presence: Visibility | None = None, offers: Visibility | None = None) -> None:
        """Say who may see that we are online (`presence`), and who may call us (`offers`): `public`, which is everybody
        and the default, `contacts`, or `hidden`, which is nobody. None leaves it as it is.

        The server keeps it for all devices of ours, and `state.privacy` shows it. Whom we call may answer, whatever is
        set here. Someone who may call us can find out that we are online, so set both to be hidden. Raises
        `SignalingError` (a `RequestFailed` with the code `unknown-type`: the server is too old), `InvalidAddress`,
        `UsageError`, `StateError`.
        """
        await self._ready().change_privacy(presence=presence, offers=offers)

    def set_path(self, user_id: str, path: str | None) -> None:
        """Choose the paths that may be used with a user, instead of the store's own; None ends that.

        `auto`: messages go sealed through the server at once, and over a direct connection as soon as there is one.
        `direct`: never through the server. `turn`: direct connections through TURN servers only, so that the peer
        learns no address of ours. `relay`: through the server only, for the same reason. Connections that this does not
        allow end. Raises `ConfigError` for another word, `InvalidAddress`, `StateError`.
        """
        mode = None if path is None else _path_mode(path)
        self._open().set_path(check_user_id(user_id), mode)

    @property
    def has_relay(self) -> bool:
        """Whether messages may go sealed through the signaling server. False before `connect_to_signaling`."""
        return self._open().relay is not None

    async def stats(self, address: str) -> PeerStats | None:
        """How the connection with a peer runs: its path, its traffic. None when there is no path.

        `address`: `user`, for the device that messages to the user go to, or `user/device`. Raises `InvalidAddress`,
        `StateError`.
        """
        user_id, device = parse(address)
        peer = self._ready().find(user_id)
        return None if peer is None else await peer.stats(device)

    async def quality(self, address: str) -> PeerQuality:
        """How well the connection with a peer runs now: a grade, and what it is made of. `lost` without a connection.

        `address` as in `stats`. Raises `InvalidAddress`, `StateError`.
        """
        user_id, device = parse(address)
        peer = self._ready().find(user_id)
        return PeerQuality(Grade.LOST, "no-path") if peer is None else await peer.quality(device)

    async def readings(self, address: str, *, every: float = 2.0) -> AsyncIterator[PeerQuality]:
        """A reading of `quality` each `every` seconds, the first at once, until you stop or the store closes.

        Raises `InvalidAddress`, `StateError`, and `ConfigError` for an `every` that is not from 0.25 s to an hour.
        """
        check_number("every", every, 0.25, 3600, " of seconds")
        while self._closing is None:
            yield await self.quality(address)
            await asyncio.sleep(every)

    def _open(self) -> PeerManager:
        if self._closing is not None:
            raise StateError("the store is closed")
        return self._manager

    def _ready(self) -> PeerManager:
        manager = self._open()
        if manager.signaling is None:
            raise StateError("connect_to_signaling comes first")
        return manager

    # --- messages -------------------------------------------------------------------------------------------------

    def send(self, address: str, message: Sendable) -> Delivery:
        """Queue a message for a peer: a str as text, bytes, or a JSON value (dict, list, number, bool, None).

        `address`: `user/device` for exactly this device. `user` for the device heard from last, else the one registered
        last; the message moves to another one when that device is gone.

        Returns at once, also before `connect_to_signaling`: the message waits for it then. Messages arrive once and in
        order, as soon as the peer can be reached. Await the `Delivery` to know when this one has arrived, or ignore it.
        Raises `MessageTooLarge`, `QueueFull`, `UsageError` for what cannot be sent, `PeerKeyChanged` until the new key
        is accepted, `TooManyPeers`, `StateError`.
        """
        manager = self._open()
        user_id, device = parse(address)
        kind, data = content.encode(message)
        return manager.peer(user_id).send(device, kind, data)

    async def drain(self, user_id: str | None = None, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Wait until all that was sent so far (to one peer, or to all) is acknowledged.

        Raises `DeliveryFailed` when a message will not be, `TimeoutError` after `timeout` seconds (None: never).
        """
        peers = self._manager.peers
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True)
        if user_id is not None:
            check_user_id(user_id)
        devices = [device for peer in peers if user_id in (None, peer.user_id) for device in peer.devices]
        last = [delivery for device in devices for delivery in device.messages.last]
        async with asyncio.timeout(timeout):
            for delivery in last:
                await delivery

    def messages(self) -> AsyncIterator[Message]:
        """An iterator over the messages that arrive, of all peers; it ends after `disconnect()`.

        Of several iterators each gets a part. Who does not read holds the senders back: nothing is lost. Without an
        iterator messages wait; while there is an `on_message` callback they go there instead.
        """
        return _Messages(self._mailbox, self._read)

    def on_message(self, callback: Callable[[Message], None]) -> Callable[[], None]:
        """Have each message handed to `callback`, which must not block, instead of to `messages()`.

        Returns what ends it. A callback that raises is logged, and the message counts as delivered.
        """

        def read(queued: QueuedMessage) -> None:
            message = self._read(queued)
            if message is not None:
                callback(message)

        return self._mailbox.on_message(read)

    def _read(self, queued: QueuedMessage) -> Message | None:
        try:
            read = content.decode(queued.content, queued.data)
            return Message(
                queued.sender,
                queued.device,
                read,
                queued.sequence,
                f"{queued.stream}:{queued.sequence}",
                queued.redelivered,
            )
        except ProtocolViolation as error:
            _log.warning("a message of %s/%s cannot be read: %s", queued.sender, queued.device, error)
            self._manager.unreadable(queued.sender, queued.device, str(error))
            return None

    def _mailbox_has_room(self) -> None:
        self._manager.hand_over()

    # --- files ----------------------------------------------------------------------------------------------------

    async def send_file(
        self, address: str, path: Path | str | os.PathLike[str] | Readable, *, name: str | None = None
    ) -> Transfer:
        """Offer a file or a folder to a peer, under `name` or its own; it is sent when they have accepted it.

        `path` may be a binary stream, which is read in a thread until its end and stays open. `address` as in `send`;
        a file that was offered to a device does not move to another one. A peer whose program is started anew is
        offered it again, and resumes it.

        Returns when the file has been looked at, and the journal has it, if there is one (`on_resumed_file`); `await`
        the transfer that is returned to know that it is there, or watch it with `subscribe`. Messages go on meanwhile.
        Raises `UsageError` for what cannot be read, `PeerKeyChanged` until the new key is accepted, `TooManyPeers`,
        `TooManyTransfers`, `JournalError`, `InvalidAddress`, `StateError`. What goes wrong later is told by the
        transfer.
        """
        self._open()
        user_id, device = parse(address)
        if isinstance(path, (str, os.PathLike)):
            source = Path(path)
            found = await asyncio.to_thread(disk.look, source)
        else:
            source, found = Path("stream"), disk.look_at_stream(path)
        manager = self._open()
        recipient = manager.peer(user_id).device(device)
        files = manager.services.files
        transfer = files.offer(recipient, source, found, name, addressed=device is not None)
        await files.stored(transfer)
        return transfer

    def on_file(self, callback: Callable[[Transfer], None]) -> Callable[[], None]:
        """Have `callback`, which must not block, called with each file that is offered: it calls `accept` or `decline`
        of the transfer, now or later. Returns what ends it.

        While there is no callback, files are declined.
        """
        return self._setup.on_file.add(callback)

    def on_resumed_file(self, callback: Callable[[Transfer], None]) -> Callable[[], None]:
        """Have `callback` called with each transfer that goes on by itself, because the journal has kept it: a file of
        ours, in `connect_to_signaling`, and one that was accepted before, when its sender is back. Returns what ends
        it. To be called before `connect_to_signaling`; later `transfers` has them too."""
        return self._setup.on_resumed_file.add(callback)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """All files that are on offer or under way, in both directions, the oldest first."""
        return self._manager.services.files.transfers

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> StoreState:
        """How things stand now."""
        return self._feed.current

    def subscribe(self, callback: Callable[[StoreState], None]) -> Callable[[], None]:
        """Have `callback` called now, and at each change. Returns what ends it. What it raises is logged.

        Changes that only count queued messages may be told together.
        """
        return self._feed.subscribe(callback)

    def states(self) -> AsyncIterator[StoreState]:
        """An iterator over the states: the current one, then each change; who is slow sees the newest only."""
        return States(self._feed)


def _path_mode(path: str) -> PathMode:
    try:
        return PathMode(path)
    except ValueError:
        words = ", ".join(mode.value for mode in PathMode)
        raise ConfigError("path", f"{path!r} is none of {words}") from None


def _journal(given: Journal | Path | str | None) -> Journal | None:
    if given is None or given == ":memory:":
        return None
    if isinstance(given, Path | str):
        return SqliteJournal(given)
    check_methods("journal", given, ("open", "load", "write", "close"), "a path, or a Journal")
    return given


class _Messages:
    """The iterator of `messages()`."""

    def __init__(self, mailbox: Mailbox, read: Callable[[QueuedMessage], Message | None]) -> None:
        self._mailbox = mailbox
        self._read = read
        self._reader = Reader(mailbox)

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        while (queued := await self._mailbox.next(self._reader)) is not None:
            message = self._read(queued)
            if message is not None:
                return message
        raise StopAsyncIteration
