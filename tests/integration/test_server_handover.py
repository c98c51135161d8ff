"""A restart behind a socket that outlives the process: many clients go on with their sessions, and nobody notices."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from aldis.client.client import SignalingClient
from aldis.client.events import Closed, GoingAway, PresenceChanged, Registered, SignalingEvent
from aldis.identity.keys import Identity
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient
from support.server_process import ServerProcess

CLIENTS = 200


class Strangers:
    """People who connect all the time, one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._entered = asyncio.Condition()
        self.count = 0
        self.busy = 0

    async def connect_for_ever(self) -> None:
        """Raises `ConnectionRefusedError`."""
        while True:
            try:
                async with await RawClient.connect(self._port) as client:
                    await client.leave()
            except HandshakeRefused as refusal:
                # Accepted before the server was asked to stop, and asked for a WebSocket after that.
                if refusal.status != 503:
                    raise
                self.busy += 1
            except (ConnectionResetError, asyncio.IncompleteReadError):
                self.busy += 1
            async with self._entered:
                self.count += 1
                self._entered.notify_all()

    async def more(self, count: int) -> None:
        """Return when so many more have been there."""
        async with asyncio.timeout(PATIENCE), self._entered:
            wanted = self.count + count
            await self._entered.wait_for(lambda: self.count >= wanted)


async def test_two_hundred_clients_keep_their_sessions_over_a_restart_and_nobody_is_refused(tmp_path: Path) -> None:
    events: list[tuple[int, SignalingEvent]] = []
    all_back = asyncio.Event()

    def note(number: int) -> Callable[[SignalingEvent], None]:
        def told(event: SignalingEvent) -> None:
            events.append((number, event))
            if len({who for who, what in events if isinstance(what, Registered)}) == CLIENTS:
                all_back.set()

        return told

    async with AsyncExitStack() as stack:
        public = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        port = public.getsockname()[1]
        first = await stack.enter_async_context(ServerProcess(tmp_path, sockets={"public": public}, log_level="info"))
        clients = [
            await stack.enter_async_context(SignalingClient(f"ws://127.0.0.1:{port}", f"user-{number}"))
            for number in range(CLIENTS)
        ]
        for client in clients:
            await client.register(Identity.generate())
        await clients[0].watch(*(client.user_id for client in clients[1:]))
        await clients[0].discover("user-1")  # all answers to the watch have come
        strangers = Strangers(port)
        connecting = asyncio.create_task(strangers.connect_for_ever())
        await strangers.more(1)
        for number, client in enumerate(clients):
            client.subscribe(note(number))
        first.signal(signal.SIGTERM)
        assert await first.wait() == 0
        second = await stack.enter_async_context(ServerProcess(tmp_path, sockets={"public": public}, log_level="info"))
        async with asyncio.timeout(PATIENCE):
            await all_back.wait()
        await strangers.more(2)
        connecting.cancel()
        (outcome,) = await asyncio.gather(connecting, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError), outcome
        assert strangers.busy <= 1
        registered = [event for _, event in events if isinstance(event, Registered)]
        assert [event.resumed for event in registered] == [True] * CLIENTS
        assert len([event for _, event in events if isinstance(event, GoingAway)]) == CLIENTS
        assert not [event for _, event in events if isinstance(event, Closed)]
        # Nobody was shown offline. The sessions are the earlier ones, so nothing is told anew either.
        assert not [event for _, event in events if isinstance(event, PresenceChanged)]
        (line,) = [line for line in second.lines() if line["event"] == "goes on with the sessions of the last run"]
        assert line["sessions"] == CLIENTS
        for client in clients:
            await client.close()
        assert await second.stop() == 0
        for server in (first, second):
            server.assert_clean_log()
