"""`aldis doctor`: what works and what does not, in words, against real servers good and bad."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from aldis.cli.checks import Check, Examination, Mark, Patient
from aldis.cli.exits import ExitCode
from aldis.client.address import ServerAddress
from aldis.identity.keys import Identity
from support.certificates import make_certificates
from support.commands import aldis
from support.coturn import Coturn
from support.evil_server import evil_server
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.servers import Server


class LittleStun(asyncio.DatagramProtocol):
    """Answers STUN binding requests (RFC 8489) with the address that it sees."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        cookie = 0x2112A442
        address = int.from_bytes(bytes(map(int, addr[0].split("."))), "big") ^ cookie
        attribute = struct.pack(">HHBBHI", 0x0020, 8, 0, 1, addr[1] ^ (cookie >> 16), address)
        self.transport.sendto(struct.pack(">HHI", 0x0101, len(attribute), cookie) + data[8:20] + attribute, addr)


@pytest.fixture
async def stun() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(LittleStun, local_addr=("127.0.0.1", 0))
    yield f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    transport.close()


async def doctor(*words: str | Path, home: Path) -> tuple[int, str]:
    result = await asyncio.to_thread(aldis, "doctor", *words, home=home)
    assert result.stderr == ""
    return result.returncode, result.stdout


async def checks(*words: str, home: Path) -> tuple[int, dict[str, dict[str, str]]]:
    code, text = await doctor(*words, "--json", home=home)
    report = json.loads(text)
    assert report["ok"] is (code == 0)
    return code, {check["check"]: check for check in report["checks"]}


async def test_all_is_well_with_a_server_on_this_machine(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        code, text = await doctor("--server", server.url, home=server.home)
    assert code == 0
    assert text.endswith("\nAll is well.\n")
    assert "✓ registration" in text
    assert "✓ wrtc channel" in text
    assert "✓ aiortc channel" in text
    assert max(map(len, text.splitlines())) <= 80


async def test_it_takes_one_name_for_all_time_and_does_not_fill_the_directory(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        (_, first), (_, second) = [await doctor("--server", server.url, home=server.home) for _ in range(2)]
    names = [re.search(r"as (doctor-[a-z2-7]{4}-[a-z2-7]{4}), with proof", text) for text in (first, second)]
    assert names[0]
    assert names[1]
    assert names[0][1] == names[1][1]


async def test_machines_get_one_object(tmp_path: Path, stun: str) -> None:
    async with Server(tmp_path, "--stun", stun) as server:
        code, found = await checks("--server", server.url, home=server.home)
    assert code == 0
    assert {name: check["mark"] for name, check in found.items()} == {
        "address": "ok",
        "port": "ok",
        "TLS": "note",
        "WebSocket": "ok",
        "registration": "ok",
        "ICE servers": "ok",
        "STUN": "ok",
        "wrtc candidates": found["wrtc candidates"]["mark"],  # with or without srflx: a matter of the network
        "wrtc channel": "ok",
        "aiortc candidates": found["aiortc candidates"]["mark"],
        "aiortc channel": "ok",
    }
    assert found["ICE servers"]["text"] == stun
    assert f"{stun} sees this machine as 127.0.0.1:" in found["STUN"]["text"]
    assert "host " in found["wrtc candidates"]["text"]


async def test_a_stun_server_that_does_not_answer_is_told(tmp_path: Path) -> None:
    async with Server(tmp_path, "--stun", "stun:127.0.0.1:9") as server:
        code, found = await checks("--server", server.url, "--timeout", "1", home=server.home)
    assert code == 0
    assert found["STUN"]["mark"] == "warn"
    assert "127.0.0.1:9: " in found["STUN"]["text"]
    # The engines are not kept waiting for it: they would tell that they miss an address from it.
    for engine in ("wrtc", "aiortc"):
        assert found[f"{engine} candidates"]["mark"] == found[f"{engine} channel"]["mark"] == "ok"


@pytest.mark.parametrize("secret", ["wrong", "secret"])
async def test_a_turn_server_that_refuses_the_credentials_is_told(secret: str, tmp_path: Path) -> None:
    async with Coturn(tmp_path, "--use-auth-secret", "--static-auth-secret", "secret") as turn:
        url = f"turn:127.0.0.1:{turn.port}"
        async with Server(tmp_path, "--turn", url, "--turn-secret", secret) as server:
            code, found = await checks("--server", server.url, "--timeout", "8", home=server.home)
    assert code == 0
    for engine in ("wrtc", "aiortc"):
        check = found[f"{engine} candidates"]
        if secret == "secret":
            assert check["mark"] == "ok"
            assert "relay " in check["text"]
        else:
            assert check["mark"] == "warn"
            assert check["text"].endswith("; no relay")
            assert "refuses the credentials" in check["advice"]


async def test_each_turn_server_is_asked_for_itself(tmp_path: Path) -> None:
    async with Coturn(tmp_path, "--use-auth-secret", "--static-auth-secret", "secret") as turn:
        urls = f"turn:127.0.0.1:{turn.port},turn:127.0.0.1:9"
        async with Server(tmp_path, "--turn", urls, "--turn-secret", "secret") as server:
            code, text = await doctor("--server", server.url, "--timeout", "8", home=server.home)
    assert code == 0
    words = " ".join(text.split())
    assert f"✓ TURN server turn:127.0.0.1:{turn.port} relays" in words
    assert "! TURN server turn:127.0.0.1:9 does not relay -> It cannot be reached from here" in words
    assert text.endswith("\nOne thing to look at, marked with an arrow.\n")


async def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    code, found = await checks("--server", "ws://127.0.0.1:1", home=tmp_path)
    assert code == 3
    assert found["port"]["mark"] == "fail"
    assert "connection refused" in found["port"]["text"]
    assert "firewall" in found["port"]["advice"]
    assert "WebSocket" not in found
    assert found["wrtc channel"]["mark"] == "ok"  # this machine is looked at all the same


async def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    code, found = await checks("--server", "ws://nowhere.invalid", home=tmp_path)
    assert code == 3
    assert found["address"]["mark"] == "fail"
    assert "nowhere.invalid cannot be resolved" in found["address"]["text"]


OTHER_ADDRESS = "If the port is one for TLS, the address has to begin with wss://."
BEHIND = "the server behind it does not answer it."


@pytest.mark.parametrize(
    ("answer", "told", "advice"),
    [
        (b"200 OK\r\nContent-Length: 0", "no signaling server: it answered 200", OTHER_ADDRESS),
        (b"400 Bad Request", "no signaling server: it answered 400", OTHER_ADDRESS),
        (b"403 Forbidden", "it does not let us in (403)", "does not admit this address. Tell the operator."),
        (b"404 Not Found", "nothing at this path (404)", OTHER_ADDRESS),
        (b"421 Misdirected Request", "its operator has to start it with --names", "the operator has told you."),
        (b"426 Upgrade Required", "a proxy in between does not pass the upgrade on (426)", OTHER_ADDRESS),
        (b"429 Too Many Requests", "try again in a moment (429)", "the proxy in front (--trusted-proxies)."),
        (b"502 Bad Gateway", "the server behind it is down (502)", BEHIND),
        (b"503 Service Unavailable", "full, or a proxy in front of it finds it down (503)", "or why it is down."),
        (b"504 Gateway Timeout", "the server behind it is down (504)", BEHIND),
        (b"505 HTTP Version Not Supported", "a proxy in between speaks HTTP/1.0 to the server (505)", OTHER_ADDRESS),
        (b"301 Moved\r\nLocation: https://elsewhere/", "to https://elsewhere/", "if you trust it."),
        (b"101 Switching Protocols\r\nSec-WebSocket-Accept: x", "answers the upgrade wrongly", OTHER_ADDRESS),
    ],
)
async def test_a_server_that_does_not_upgrade(answer: bytes, told: str, advice: str) -> None:
    await refused_by(b"HTTP/1.1 " + answer + b"\r\n\r\n", told, advice)


@pytest.mark.parametrize(
    ("answer", "told"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not that of a web server"), (b"", "it hangs up without an answer")],
)
async def test_another_kind_of_server(answer: bytes, told: str) -> None:
    await refused_by(answer, told, OTHER_ADDRESS)


async def refused_by(answer: bytes, told: str, advice: str) -> None:
    """See that a server which answers this is examined with these words."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        server = ServerAddress.parse(f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}")
        # Without the command around it, which would look at the engines of this machine each time.
        examination = Examination(Patient(server, "doctor", Identity.generate(), None, PATIENCE))
        websocket = [check async for check in examination.server()][-1]
    assert (websocket.name, websocket.mark, websocket.code) == ("WebSocket", Mark.FAIL, ExitCode.SERVER_UNREACHABLE)
    assert told in websocket.text
    assert websocket.advice.endswith(advice)


async def _relay(url: str) -> Check:
    """What is said of the relay of a server, of which this machine thinks that it is elsewhere."""
    patient = Patient(ServerAddress.parse(url), "doctor", Identity.generate(), None, 1.0)
    examination = Examination(patient)
    async for check in examination.server():
        assert check.mark is not Mark.FAIL, check
    return list(examination._ways.checks())[-1]


async def test_a_sealed_message_is_sent_through_the_relay_before_it_is_said_to_work(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        assert (await _relay(server.url)).text.startswith("works: ")
    (tmp_path / "other").mkdir()
    async with Server(tmp_path / "other", "--no-relay") as server:
        assert (await _relay(server.url)).text.startswith("not there: ")
    async with evil_server(relay=True) as evil:
        evil.tamper = lambda message: []
        lost = await _relay(evil.url)
    assert lost.mark is Mark.WARN
    assert lost.text == "offered, and does not work: a message to this machine itself did not come back in 1 s"
    async with evil_server(relay=True) as evil:
        evil.refuse = lambda message: 0.5
        assert (await _relay(evil.url)).text.startswith("offered, and does not work: ")


async def test_tls_where_there_is_none(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        code, found = await checks("--server", server.url.replace("ws:", "wss:"), "--timeout", "1", home=server.home)
    assert code == 3
    assert found["TLS"]["mark"] == "fail"


@pytest.mark.parametrize("waits", [False, True], ids=["expires soon", "no certificate yet"])
async def test_the_servers_certificate_is_looked_at(tmp_path: Path, waits: bool) -> None:
    files = make_certificates(tmp_path)
    ordered = {"acme_domain": "a.example", "acme_agree_tos": True, "acme_directory": "https://127.0.0.1:1/"}
    given = ordered if waits else {"tls_cert": str(files.cert), "tls_key": str(files.key)}
    async with ServerProcess(tmp_path, **given) as process:
        server = ServerAddress.parse(f"wss://127.0.0.1:{process.port}")
        examination = Examination(Patient(server, "doctor", Identity.generate(), files.ca, PATIENCE))
        found = {check.name: check async for check in examination.server()}
    if waits:
        assert found["TLS"].mark is Mark.FAIL
        assert "waits for its first certificate" in found["TLS"].advice
    else:
        assert found["TLS"].mark is Mark.WARN
        assert found["TLS"].text.endswith("certificate trusted, for 0 days more only")
        assert "aldis admin certificate" in found["TLS"].advice
        assert found["registration"].mark is Mark.OK


@pytest.mark.parametrize(
    ("made", "trusts", "advice"),
    [
        ({"expired": True}, True, "The operator has to renew it"),
        ({"early": True}, True, "Is the clock of this machine right?"),
        ({"host": "another.example"}, True, "Use a name that is in the certificate."),
        ({}, False, "give its authority with --ca-file"),
    ],
    ids=["expired", "not yet valid", "another name", "untrusted"],
)
async def test_what_is_wrong_with_a_certificate_has_its_own_advice(
    made: dict[str, Any], trusts: bool, advice: str, tmp_path: Path
) -> None:
    files = make_certificates(tmp_path, **made)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.cert, files.key)
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    async with listener:
        server = ServerAddress.parse(f"wss://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        patient = Patient(server, "doctor", Identity.generate(), files.ca if trusts else None, PATIENCE)
        found = {check.name: check async for check in Examination(patient).server()}
    assert found["TLS"].mark is Mark.FAIL
    assert advice in found["TLS"].advice


async def test_a_name_of_ones_own_is_registered_only_with_its_key(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        missing = await asyncio.to_thread(aldis, "doctor", "--server", server.url, "--as", "alice", home=server.home)
        assert missing.returncode == 2
        assert "there is no key for alice here" in missing.stderr
        await asyncio.to_thread(aldis, "keys", "new", "alice", home=server.home)
        code, found = await checks("--server", server.url, "--as", "alice", home=server.home)
        assert code == 0
        assert found["registration"]["text"].startswith("as alice, ")
        other = str(tmp_path / "other")
        await asyncio.to_thread(aldis, "keys", "new", "alice", "--data", other, home=server.home)
        code, found = await checks("--server", server.url, "--as", "alice", "--data", other, home=server.home)
        assert code == 4
        assert found["registration"]["mark"] == "fail"
        assert "belongs to another key" in found["registration"]["text"]
