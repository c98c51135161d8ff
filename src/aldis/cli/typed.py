"""`aldis chat` at a terminal: a line editor, with the conversation above it and the state below it.

Rules: no input may disturb the line that is being typed, or control the terminal. The toolbar shows the state, and the
lines above it show changes.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application.current import get_app_session
from prompt_toolkit.formatted_text import FormattedText, StyleAndTextTuples
from prompt_toolkit.formatted_text.utils import fragment_list_width
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from aldis.cli.exits import ExitCode, explain
from aldis.cli.talk import Talk, alongside, count_messages
from aldis.cli.text import as_text, safe_block, safe_line
from aldis.client.events import SignalingState
from aldis.errors import AldisError, DeliveryFailed
from aldis.peer.connection import PeerState
from aldis.store.quality import Grade, PeerQuality

_STYLE: Final = Style.from_dict(
    {
        "bottom-toolbar": "noreverse bg:ansibrightblack fg:ansiwhite",
        "good": "fg:ansibrightgreen",
        "soon": "fg:ansibrightyellow",
        "bad": "fg:ansibrightred",
        "hint": "fg:ansigray",
        "me": "fg:ansicyan bold",
        "peer": "fg:ansigreen bold",
        "notice": "fg:ansigray italic",
    }
)
_REFRESH: Final = 1.0  # seconds; the round-trip time changes without an event
_LONGEST_NAME: Final = 24  # columns
_NARROWEST: Final = 20  # columns; in less than this a message would have a letter in each row


def shorten(name: str, columns: int = _LONGEST_NAME) -> str:
    """Cut a name to this many columns of a terminal."""
    name = safe_line(name)
    if get_cwidth(name) <= columns:
        return name
    while get_cwidth(name) >= columns:
        name = name[:-1]
    return name + "…"


def notice(text: str) -> None:
    """Print a text that neither of the two has written."""
    _print("class:notice", "", f"  {text}", indent=2)


def _print(style: str, label: str, text: str, *, indent: int) -> None:
    """Print `text` after `label`, which has the style; without a label the text has it.

    Fold it here. The terminal would start the next row at the margin, where a message could be made to look like
    another one.
    """
    width = max(get_app_session().output.get_size().columns - indent, _NARROWEST)
    folded = ("\n" + " " * indent).join(row for line in text.split("\n") for row in fold(line, width))
    print_formatted_text(FormattedText([(style, label), ("" if label else style, folded)]), style=_STYLE)


def fold(line: str, width: int) -> list[str]:
    """Break a line into rows of at most `width` columns, at blanks if possible."""
    rows, start, blank, columns = [], 0, 0, 0
    for position, character in enumerate(line):
        size = get_cwidth(character)
        if columns + size > width:
            end = blank if blank > start else position
            rows.append(line[start:end])
            start = end
            columns = get_cwidth(line[start:position])
        columns += size
        if character == " ":
            blank = position + 1
    return [*rows, line[start:]]


class Screen:
    """The conversation at the terminal."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._peer = shorten(talk.plan.peer)
        self._quality = PeerQuality(Grade.LOST)
        self._keyboard = _keyboard()
        self._editor: PromptSession[str] = PromptSession(
            FormattedText([("class:me", f"{shorten(talk.plan.me)}> ")]),
            history=InMemoryHistory(),
            bottom_toolbar=self._toolbar,
            refresh_interval=_REFRESH,
            key_bindings=_bindings(),
            style=_STYLE,
            include_default_pygments_style=False,
            enable_suspend=True,
            input=self._keyboard,
        )

    async def run(self) -> ExitCode:
        """Run the conversation until the person leaves."""
        with patch_stdout(raw=True):
            if not self._talk.plan.wait:
                await self._talk.meet(None)
            redraw = self._talk.store.subscribe(lambda _: self._editor.app.invalidate())
            try:
                return await alongside(
                    self._type(),
                    self._print_messages(),
                    self._read_quality(),
                    self._talk.meet(None),
                    self._talk.refused_for_good(),
                )
            finally:
                redraw()
                self._talk.close()

    async def _type(self) -> ExitCode:
        # Keep raw mode between two lines too: then no key is echoed twice, and none is lost.
        with self._keyboard.raw_mode():
            interrupted = await self._lines()
        # From here on Ctrl-C is a signal again, because no editor reads it.
        return ExitCode.INTERRUPTED if interrupted else await self._leave()

    async def _lines(self) -> bool:
        """Send line after line until Ctrl-D or Ctrl-C; True when it was Ctrl-C."""
        while True:
            try:
                line = await self._editor.prompt_async(handle_sigint=False)
            except EOFError:
                return False
            except KeyboardInterrupt:
                return True
            if line.strip():
                await self._send(line)

    async def _send(self, line: str) -> None:
        # prompt_toolkit returns bytes that are not UTF-8 as surrogates (PEP 383), which a message cannot contain.
        text = line.encode(errors="surrogateescape").decode(errors="replace")
        if text != line:
            notice("the line had bytes that are not UTF-8; they were replaced")
        try:
            self._talk.store.send(self._talk.plan.peer, text)
        except AldisError as error:
            notice(f"not sent: {explain(error)}")

    async def _leave(self) -> ExitCode:
        queued = self._talk.view.queued
        if not queued:
            return ExitCode.OK
        notice(f"waiting for {self._peer} to get {count_messages(queued)}; Ctrl-C leaves without")
        try:
            if await self._talk.delivered():
                return ExitCode.OK
        except DeliveryFailed as error:
            notice(explain(error))
        notice(f"{self._peer} has not got {count_messages(self._talk.view.queued)}{self._talk.afterwards}")
        return ExitCode.NOT_DELIVERED

    async def _print_messages(self) -> None:
        async for message in self._talk.store.messages():
            name = shorten(message.sender)
            _print("class:peer", f"{name}: ", safe_block(as_text(message.content)), indent=get_cwidth(name) + 2)

    async def _read_quality(self) -> None:
        async for quality in self._talk.store.readings(self._talk.plan.peer):
            self._quality = quality
            self._editor.app.invalidate()

    # --- the toolbar --------------------------------------------------------------------------------------------------

    def _toolbar(self) -> StyleAndTextTuples:
        left = [*self._server(), ("", "   "), *self._connection(), ("", "   "), ("", self._queue())]
        right: StyleAndTextTuples = [("class:hint", "Ctrl-D leaves ")]
        room = self._editor.app.output.get_size().columns - fragment_list_width(left) - fragment_list_width(right)
        return [*left, ("", " " * room), *right] if room > 0 else left

    def _server(self) -> StyleAndTextTuples:
        match self._talk.state.signaling:
            case SignalingState.CONNECTED:
                return [("class:good", " ● "), ("", "server")]
            case SignalingState.CONNECTING:
                return [("class:soon", " ○ "), ("", "server out of reach")]
            case SignalingState.DISCONNECTED:
                return [("class:bad", " ○ "), ("", "no server")]

    def _connection(self) -> StyleAndTextTuples:
        view = self._talk.view
        match view.state:
            case PeerState.CONNECTED:
                rtt = view.round_trip_time
                # `view` has no word for TURN, and a reading may be some seconds old.
                path = self._quality.path if view.path != "relay" else None
                how = f"{path or view.path or 'direct'}{'' if rtt is None else f' {milliseconds(rtt)}'}"
                return [(_COLORS[self._quality.grade], "● "), ("", f"{self._peer} {how}{in_words(self._quality)}")]
            case PeerState.CONNECTING:
                return [("class:soon", "○ "), ("", f"{self._peer} connecting")]
            case PeerState.DISCONNECTED:
                return [("class:soon", "○ "), ("", f"{self._peer} interrupted")]
            case PeerState.CLOSED:
                return [("class:hint", "○ "), ("", f"{self._peer} has left")]
            case PeerState.FAILED:
                return [("class:bad", "○ "), ("", f"{self._peer} no connection")]
            case PeerState.NEW:
                return [("class:hint", "○ "), ("", f"{self._peer} {'offline' if view.online is False else '...'}")]

    def _queue(self) -> str:
        queued = self._talk.view.queued
        return f"{queued} queued" if queued else ""


_COLORS: Final = {
    Grade.GOOD: "class:good",
    Grade.FAIR: "class:soon",
    Grade.POOR: "class:bad",
    Grade.LOST: "class:good",  # of the reading before; the state is newer
}
_REASONS: Final = {
    "round-trip-time": "slow",
    "jitter": "unsteady",
    "heartbeats": "answers are late",
}


def in_words(quality: PeerQuality) -> str:
    """What to say of a connection that is not good, with a comma before it: `, fair: slow`."""
    reason = _REASONS.get(quality.reason)
    return f", {quality.grade}: {reason}" if reason else ""


def milliseconds(seconds: float) -> str:
    """A round-trip time for people: `0.4 ms`, `38 ms`."""
    value = seconds * 1000
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _bindings() -> KeyBindings:
    """Ctrl-C first empties the line, as in a shell. On an empty line it leaves."""
    bindings = KeyBindings()

    @bindings.add("c-c")
    def interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


def _keyboard() -> Input:
    """The terminal's input, always in raw mode.

    To print above the prompt, prompt_toolkit switches the terminal to cooked mode for a moment. If Ctrl-D is pressed
    just then, the end of file is lost. We only print there, and do not need cooked mode.
    """
    keyboard = create_input()
    keyboard.cooked_mode = nullcontext  # type: ignore[method-assign]
    return keyboard
