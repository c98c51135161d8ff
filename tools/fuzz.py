"""Try inputs on what reads bytes of strangers, guided by which code they reach:

    .venv/bin/pip install atheris
    .venv/bin/python tools/fuzz.py codec --seconds 600
    .venv/bin/python tools/fuzz.py --list

atheris (libFuzzer for Python) is in no lock, since only this command needs it. A target fails by any exception but the
documented one, and when what it has read does not survive writing and reading. New inputs that reach new code go into
`build/fuzz/TARGET`; a failing one is written beside them, and belongs into `tests/fuzz/corpus/TARGET` with the cure.
`tests/fuzz/test_corpus.py` runs the corpus without atheris.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from multidict import CIMultiDict

from aldis.errors import ProtocolViolation
from aldis.protocol import channel, codec
from aldis.protocol.frames import Assembler, BadFrame, Opcode, read_close
from aldis.protocol.hosts import read_host
from aldis.server import http
from aldis.store.messages import control

ROOT: Final = Path(__file__).parent.parent
CORPUS: Final = ROOT / "tests" / "fuzz" / "corpus"
FOUND: Final = ROOT / "build" / "fuzz"
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
    """Frames of a data channel."""
    with suppress(ProtocolViolation):
        channel.decode(data)


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


def fuzz_http(data: bytes) -> None:
    """The lines of a request that we read: its first one, the host, lists of tokens."""
    text = data.decode("latin-1")
    first, *lines = text.split("\r\n")
    http.is_old(first.encode("latin-1"))
    headers = CIMultiDict[str]()
    for line in lines:
        name, _, value = line.partition(":")
        headers.add(name, value.strip())
    host = http.host_of(headers)
    if host is not None:
        with suppress(ValueError):
            read_host(host.text)
    for name in headers:
        http.tokens(headers, name)


def fuzz_hosts(data: bytes) -> None:
    """Hosts as people write them."""
    with suppress(ValueError):
        host = read_host(data.decode())
        assert read_host(host) == host, host


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "codec": fuzz_codec,
    "channel": fuzz_channel,
    "control": fuzz_control,
    "frames": fuzz_frames,
    "http": fuzz_http,
    "hosts": fuzz_hosts,
}


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tools/fuzz.py", description=__doc__.partition(":")[0])
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600, help="how long (%(default)s)")
    parser.add_argument("--list", action="store_true", help="list the targets, and do nothing")
    options = parser.parse_args(words)
    if options.list or options.target is None:
        for name, target in TARGETS.items():
            print(f"{name:10} {target.__doc__}")
        return 0
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
