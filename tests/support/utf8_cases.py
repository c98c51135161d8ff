"""The texts of the Autobahn test suite, 6.5 to 6.23: UTF-8, right and wrong. By number: a title and the bytes."""

from __future__ import annotations

from typing import Final

GREEK: Final = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()

_SETS: Final[dict[str, tuple[str, list[bytes]]]] = {
    "6.5": ("valid sequences", [b"hello$world", *(f"hello{c}world".encode() for c in "\u00a2\u20ac\U00024b62"), GREEK]),
    "6.6": ("all prefixes of five letters", [GREEK[:size] for size in range(1, len(GREEK) + 1)]),
    "6.7": ("the first sequence of a length", [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
    "6.8": ("the first sequences of 5 and 6 bytes", [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]),
    "6.9": ("the last sequence of a length", [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
    "6.10": (
        "the last sequences of 4, 5 and 6 bytes",
        [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"],
    ),
    "6.11": (
        "other boundaries",
        [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"],
    ),
    "6.12": (
        "continuations of nothing",
        [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xC0))],
    ),
    "6.13": (
        "lonely first bytes",
        [
            b"".join(bytes([byte, 0x20]) for byte in range(first, end))
            for first, end in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
        ],
    ),
    "6.14": (
        "the last byte is missing",
        [
            *(b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"),
            *(b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"),
        ],
    ),
    "6.15": (
        "all of these",
        [b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf"],
    ),
    "6.16": ("impossible bytes", [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]),
    "6.17": (
        "a slash that is too long",
        [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"],
    ),
    "6.18": (
        "the largest that are too long",
        [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"],
    ),
    "6.19": (
        "a zero that is too long",
        [b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"],
    ),
    "6.20": (
        "single surrogates",
        [
            bytes([0xED, second, third])
            for second, third in (
                (0xA0, 0x80),
                (0xAD, 0xBF),
                (0xAE, 0x80),
                (0xAF, 0xBF),
                (0xB0, 0x80),
                (0xBE, 0x80),
                (0xBF, 0xBF),
            )
        ],
    ),
    "6.21": (
        "pairs of surrogates",
        [
            high + low
            for high in (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf")
            for low in (b"\xed\xb0\x80", b"\xed\xbf\xbf")
        ],
    ),
    "6.22": (
        "code points that are no characters",
        [chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)],
    ),
    "6.23": ("special code points", [chr(point).encode() for point in range(0xFFF9, 0x10000)]),
}

UTF8_CASES: Final = [
    (f"{number}.{index}", title, data)
    for number, (title, texts) in _SETS.items()
    for index, data in enumerate(texts, 1)
]
