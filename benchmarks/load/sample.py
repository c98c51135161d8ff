"""The message that is relayed: an offer for one data channel, as Chrome makes it, with six candidates; 1.2 KB."""

from __future__ import annotations

from typing import Final

OFFER_SDP: Final = "\r\n".join(
    [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=extmap-allow-mixed",
        "a=msid-semantic: WMS",
        "m=application 51472 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 203.0.113.27",
        "a=candidate:1467250027 1 udp 2122260223 192.0.2.146 51472 typ host generation 0 network-id 1 network-cost 10",
        "a=candidate:1853887674 1 udp 2122194687 2001:db8:85a3::8a2e:370:7334 51473 typ host generation 0 network-id 2",
        "a=candidate:842163049 1 udp 1677729535 203.0.113.27 51472 typ srflx raddr 192.0.2.146 rport 51472"
        " generation 0 network-id 1 network-cost 10",
        "a=candidate:1510613869 1 udp 41885439 198.51.100.9 60231 typ relay raddr 203.0.113.27 rport 51472"
        " generation 0 network-id 1 network-cost 10",
        "a=candidate:233762139 1 tcp 1518280447 192.0.2.146 9 typ host tcptype active generation 0 network-id 1",
        "a=candidate:1128407051 1 tcp 1518214911 2001:db8:85a3::8a2e:370:7334 9 typ host tcptype active generation 0"
        " network-id 2",
        "a=ice-ufrag:sXP5",
        "a=ice-pwd:vN4qTtLFlzQ3kWb0S9FxR2aJ",
        "a=ice-options:trickle",
        "a=fingerprint:sha-256"
        " 75:74:5A:A6:A4:E5:52:F4:A7:67:4C:01:C7:EE:91:3F:21:3D:A2:E3:53:7B:6F:30:86:F2:30:AA:65:FB:04:24",
        "a=setup:actpass",
        "a=mid:0",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
        "",
    ]
)
