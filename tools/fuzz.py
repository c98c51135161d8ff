"""Try inputs on what reads bytes of strangers, guided by which code they reach:

    .venv/bin/pip install atheris
    .venv/bin/python tools/fuzz.py codec --seconds 600
    .venv/bin/python tools/fuzz.py codec --keep        # put into the corpus what has reached new code
    .venv/bin/python tools/fuzz.py --list

atheris (libFuzzer for Python) is in no lock, since only this command needs it. A target fails by any exception but the
documented one, and when what it has read does not survive writing and reading. New inputs that reach new code go into
`build/fuzz/TARGET`; a failing one is written beside them, and belongs into `tests/fuzz/corpus/TARGET` with the cure.
`tests/fuzz/test_corpus.py` runs the corpus without atheris.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from multidict import CIMultiDict

from aldis.errors import ProtocolViolation
from aldis.identity import proofs
from aldis.peer import sealing
from aldis.peer.sealing import SessionKeys, Unopened
from aldis.peer.session import Ended, PeerSession, Violated
from aldis.protocol import channel, codec
from aldis.protocol.frames import Assembler, BadFrame, Opcode, read_close
from aldis.protocol.hosts import read_host
from aldis.protocol.stun import read_message
from aldis.server import http, proxies
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from aldis.server.stun import StunAnswers
from aldis.store.messages import control

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.hub_world import Client, World, identity_of  # noqa: E402 - the path is needed first

CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
FOUND: Final = ROOT / "build" / "fuzz"
# The recipient's of the first handshake in tests/vectors/sealing.json, which the target `sealed` begins with.
_SEAL_KEY: Final = X25519PrivateKey.from_private_bytes(
    bytes.fromhex("e36a64a0fa320920b7e9df10ae5d765693d23cc282db480f79e524df8ffa6b1c")
)
# What a fragment of the target `frames` has at most: its first byte is its length.
_LIMIT: Final = 300


def fuzz_codec(data: bytes) -> None:
    """Messages of clients (both dialects) and of servers."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    with suppress(codec.DecodeFailed):
        message = codec.decode_client_message(text)
        assert codec.decode_client_message(codec.encode_text(message)) == message
    with suppress(codec.DecodeFailed):
        codec.decode_server_message(text)
    try:
        codec.decode_classic_frame(text)
    except codec.UNREADABLE:
        codec.why_not_classic_message(text)


def fuzz_channel(data: bytes) -> None:
    """Frames of a data channel, alone or in bundles."""
    with suppress(ProtocolViolation):
        frames = channel.unbundle(data)
        if data[:1] == bytes((channel.Kind.BUNDLE,)):
            assert channel.encode_bundle(frames) == data
        for frame in map(channel.decode, frames):
            if isinstance(frame, channel.Hello):
                assert channel.decode(channel.encode_hello(frame)) == frame


class _Path:
    """Takes what a session sends."""

    may_bundle = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.room = 1 << 20

    def send(self, frame: bytes) -> bool:
        self.sent.append(frame)
        return True


def fuzz_session(data: bytes) -> None:
    """What comes to a session with a peer: the size of each message (2), and the message. Size 0 lets time pass."""
    path = _Path()
    session = PeerSession(path, 0.0, silence=5.0, heartbeat=1.0, probe=1.0)
    session.open(channel.Hello(channel.VERSION, "s", 1), 0.0)
    opened = len(path.sent)
    greeted, now, at = False, 0.0, 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2])
        at += 2 + size
        now += 0.5
        for event in session.received(data[at - size : at], now) if size else session.tick(now):
            match event:
                case channel.Hello():
                    assert not greeted
                    greeted = True
                case channel.Chunk() | channel.Ack():
                    assert greeted
                case Violated() | Ended():
                    return
                case _:
                    pass
    # A PONG for each PING, and PINGs of our own.
    assert len(path.sent) - opened <= len(data) + now


_SESSION_KEYS: Final = (b"\1" * 44, b"\2" * 44)


def fuzz_sealed(data: bytes) -> None:
    """A message of the sealed relay, and the plaintext of one that the other side has sealed."""
    with suppress(Unopened):
        match sealing.read(data):
            case sealing.Handshake() as handshake:
                sealing.accept(sealing.Parties("alice", "main", "bob", "main"), handshake, _SEAL_KEY)
            case sealing.Sealed() as sealed:
                SessionKeys(sealed.session, *_SESSION_KEYS).open(sealed)
    header = bytes((sealing.SUITE, sealing.FRAMES)) + bytes(sealing.SESSION_BYTES + 8)
    ciphertext = sealing.Direction(_SESSION_KEYS[1]).encrypt(0, data, header)
    keys = SessionKeys(bytes(sealing.SESSION_BYTES), *_SESSION_KEYS)
    with suppress(Unopened):
        frames = keys.open(sealing.Sealed(keys.session, 0, header, ciphertext))
        assert b"".join(len(frame).to_bytes(4) + frame for frame in frames) == data


def fuzz_control(data: bytes) -> None:
    """Control messages of a store."""
    with suppress(ProtocolViolation):
        control.decode_control(data)


def fuzz_frames(data: bytes) -> None:
    """Messages in fragments, and closes. A fragment: a byte for opcode and end, one for its length, its bytes."""
    assembler, at, whole = Assembler(_LIMIT), 0, b""
    read_close(data)
    while at + 2 <= len(data):
        opcode, final, size = Opcode(data[at] & 1), bool(data[at] & 2), data[at + 1]
        payload, at = data[at + 2 : at + 2 + size], at + 2 + size
        whole += payload
        try:
            text = assembler.data(opcode, final, payload)
        except BadFrame:
            return
        assert (text is not None) == final
        if text is not None:
            assert text.encode() == whole
            whole = b""


# Names that the clients of the target `hub` register, by the letter behind an `r`.
_NAMES: Final = {"a": "alice", "b": "bob", "c": "alice/phone"}
_CLIENTS: Final = 4


class _HubScript:
    """Clients of one hub, the last of them of the classic dialect, and what they do."""

    def __init__(self) -> None:
        self.world = World(auth="open")
        self.clients = [self._connect(number) for number in range(_CLIENTS)]
        self.tickets: dict[int, dict[str, Any]] = {}

    def _connect(self, number: int) -> Client:
        return self.world.connect(classic=number == _CLIENTS - 1)

    def step(self, line: str) -> None:
        """A line: the number of a client, a letter that says what it does, and with what."""
        number = ord(line[0]) % _CLIENTS
        client, what, rest = self.clients[number], line[1], line[2:]
        if client.closed is not None:
            client.lose()
            self.clients[number] = client = self._connect(number)
        match what:
            case "r" if rest[:1] in _NAMES and client.reading and client.registered is None:
                self._register(number, client, _NAMES[rest[0]])
            case "l" | "d":
                client.lose(clean=what == "l")
                self.clients[number] = self._connect(number)
            case "t":
                self.world.pass_time(float(ord(rest[0]) % 64) if rest else 1.0)
            case "w":
                self.world.directory_waits = not self.world.directory_waits
                self.world.settle()
            case "f":
                self.world.directory_fails = not self.world.directory_fails
            case "u":
                client.full = not client.full
                if not client.full:
                    self.world.hub.writable(client.session)
            case _:
                self.world.hub.received(client.session, line[1:], self.world.now)
                self.world.settle()
        for other in self.clients:
            for message in other.take():
                if other is not self.clients[-1]:
                    codec.decode_server_message(msgspec.json.encode(message).decode())

    def _register(self, number: int, client: Client, address: str) -> None:
        name, _, device = address.partition("/")
        client.identity = identity_of(name)
        more: dict[str, Any] = {"resume": self.tickets[number]} if number in self.tickets else {}
        if device:
            more["device"] = device
        client.send(type="register", userId=name, publicKey=codec.to_base64(client.identity.public_key), **more)
        challenges = [message for message in client.take() if message["type"] == "challenge"]
        if challenges:
            nonce = codec.from_base64(challenges[-1]["nonce"])
            signed = client.identity.sign(proofs.registration(client.host, nonce, name, device or "main"))
            client.send(type="prove", signature=codec.to_base64(signed))
        for message in client.take():
            if message["type"] == "registered" and message.get("success"):
                client.registered = message
                if "session" in message:
                    self.tickets[number] = client.ticket(0)


def fuzz_hub(data: bytes) -> None:
    """What clients do, one thing a line: register, say something, get lost; the directory waits, fails; time passes."""
    script = _HubScript()
    for line in data.decode(errors="replace").split("\n")[:64]:
        if len(line) > 1:
            script.step(line)
    # Whatever they did: an hour later nothing is left of it.
    script.world.directory_waits = False
    for client in script.clients:
        client.lose(clean=True)
    script.world.settle()
    script.world.pass_time(3600.0, step=60.0)
    assert not script.world.hub.users_online
    assert not script.world.hub.detached_sessions
    assert not script.world.hub.memory.total


class _HttpServer:
    """A real server on loopback, which gets bytes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = SignalingServer(ServerConfig(port=0, admin_port=None, data=":memory:", names=("h",)))
        self.loop.run_until_complete(self.server.start())

    def ask(self, data: bytes) -> bytes:
        return self.loop.run_until_complete(self._ask(data))

    async def _ask(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(data)
            writer.write_eof()
            return await reader.read()
        except OSError:
            return b""
        finally:
            writer.close()


_http_server: list[_HttpServer] = []
_ANSWER: Final = re.compile(rb"HTTP/1\.1 (101|200|304|4\d\d|503|505) ")


def fuzz_http(data: bytes) -> None:
    """A request to a real server, with what follows it; PROXY headers; lists of tokens; `X-Forwarded-For`."""
    if not _http_server:
        _http_server.append(_HttpServer())
    answer = _http_server[0].ask(data)
    assert not answer or _ANSWER.match(answer), answer[:100]
    assert not _http_server[0].server.faults.count
    with suppress(proxies.BadProxyHeader):
        if len(data) >= proxies.HEAD:
            size = proxies.body_size(data[: proxies.HEAD])
            proxies.source(data[: proxies.HEAD], data[proxies.HEAD : proxies.HEAD + size])
    headers = CIMultiDict[str]()
    for line in data.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers.add(name, value.strip())
    for name in headers:
        http.tokens(headers, name)
    trusted = proxies.TrustedProxies(("10.0.0.0/8", "2001:db8::/32"))
    trusted.client("10.0.0.1", headers.getall("X-Forwarded-For", []))


def fuzz_stun(data: bytes) -> None:
    """A datagram on the STUN port: its answer, if any, is one, and is not too large."""
    answers = StunAnswers(10, 50, 0.0)
    for address in (ip_address("192.0.2.1"), ip_address("2001:db8::1")):
        answer = answers.answer(data, address, 7, 0.0)
        if answer is not None:
            headers = 28 if address.version == 4 else 48
            assert len(answer) + headers <= 2 * (len(data) + headers)
            read = read_message(answer)
            assert read is not None
            assert read.transaction == data[8:20]


def fuzz_hosts(data: bytes) -> None:
    """Hosts as people write them."""
    with suppress(ValueError):
        host = read_host(data.decode())
        assert read_host(host) == host, host


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "codec": fuzz_codec,
    "channel": fuzz_channel,
    "session": fuzz_session,
    "sealed": fuzz_sealed,
    "control": fuzz_control,
    "stun": fuzz_stun,
    "frames": fuzz_frames,
    "hub": fuzz_hub,
    "http": fuzz_http,
    "hosts": fuzz_hosts,
}


def lines_of(target: Callable[[bytes], None], data: bytes) -> set[tuple[str, int]]:
    """Which lines of ours an input reaches."""
    reached: set[tuple[str, int]] = set()

    def local(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            reached.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def trace(frame: FrameType, event: str, _: object) -> Any:
        return local if "/aldis/" in frame.f_code.co_filename else None

    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return reached


def keep(name: str) -> int:
    """Put into the corpus what reaches lines that nothing in it reaches, the shortest inputs first."""
    target, corpus = TARGETS[name], CORPUS / name
    reached: set[tuple[str, int]] = set()
    kept = 0
    for file in [*sorted(corpus.iterdir()), *sorted((FOUND / name).iterdir(), key=lambda file: file.stat().st_size)]:
        new = lines_of(target, data := file.read_bytes()) - reached
        reached |= new
        if new and file.parent != corpus:
            kept += 1
            (corpus / f"found-{hashlib.sha256(data).hexdigest()[:8]}").write_bytes(data)
    print(f"{kept} inputs kept; the corpus reaches {len(reached)} lines")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tools/fuzz.py", description=__doc__.partition(":")[0])
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600, help="how long (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="only put into the corpus what reaches code of its own")
    parser.add_argument("--list", action="store_true", help="list the targets, and do nothing")
    options = parser.parse_args(words)
    if options.list or options.target is None:
        for name, target in TARGETS.items():
            print(f"{name:10} {target.__doc__}")
        return 0
    if options.keep:
        return keep(options.target)
    try:
        engine: Any = importlib.import_module("atheris")
    except ImportError:
        print("this needs atheris: .venv/bin/pip install atheris", file=sys.stderr)
        return 2
    found = FOUND / options.target
    found.mkdir(parents=True, exist_ok=True)
    engine.instrument_all()
    arguments = [f"-max_total_time={options.seconds}", "-max_len=4096", f"-artifact_prefix={found}/failed-"]
    corpus = CORPUS / options.target
    engine.Setup([sys.argv[0], *arguments, str(found), str(corpus)], TARGETS[options.target])
    engine.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
