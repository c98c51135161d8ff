"""The floor: picows, uvloop, msgspec and a dictionary, and nothing else.

It speaks the dialect of `benchmarks.load.dialects.Minimal`, as the relay on `ws` does: `register {userId}` is answered
with `registered`; an offer is passed on with `from`. It proves nothing, keeps nothing, checks no limit and counts no
message, so what Aldis costs above it is the price of what Aldis promises.
"""

from __future__ import annotations

import sys

import msgspec
import uvloop
from msgspec import UNSET, Raw, Struct, UnsetType
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

HEADROOM = 14  # picows writes the frame's header before the message


class Register(Struct, tag="register", tag_field="type", gc=False):
    userId: str  # noqa: N815


class Offer(Struct, tag="offer", tag_field="type", gc=False, rename={"from_": "from"}):
    to: str
    offer: Raw
    from_: str | UnsetType = UNSET


decode = msgspec.json.Decoder(Register | Offer).decode
encode_into = msgspec.json.Encoder().encode_into
users: dict[str, WSTransport] = {}
buffer = bytearray(4096)


class Listener(WSListener):
    user = ""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            return
        message = decode(frame.get_payload_as_memoryview())
        if type(message) is Offer:
            recipient = users.get(message.to)
            if recipient is not None:
                message.from_ = self.user
                encode_into(message, buffer, HEADROOM)
                recipient.send_reuse_external_bytearray(WSMsgType.TEXT, buffer, HEADROOM)
        else:
            self.user = message.userId
            users[self.user] = transport
            transport.send(WSMsgType.TEXT, b'{"type":"registered","userId":"%s"}' % self.user.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if users.get(self.user) is transport:
            del users[self.user]


def accept(request: WSUpgradeRequest) -> Listener:
    return Listener()


async def main(port: int) -> None:
    server = await ws_create_server(accept, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
