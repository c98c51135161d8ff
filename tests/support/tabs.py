"""A window with the SDK and a store in it, driven by a test as a Python store is.

The window shows the page of the server, which does nothing as long as nobody types a name: so this is the SDK under the
page's security policy. In it `sdk` is the module, `store` the store, `got` what has arrived, `wires` all
RTCPeerConnections so far, and `changed()` has `Tab.until` look again.
"""

from __future__ import annotations

import asyncio
from typing import Any

from playwright.async_api import Error

from browser.conftest import Arrive
from support.browser import Person
from support.patience import PATIENCE

# As in support.stores.
_STEADY = "{ attempt: 30, heal: 15, heartbeat: 0.2, silence: 10, probe: 1, linger: 0.5 }"
_QUICK = "{ attempt: 5, heal: 2, heartbeat: 0.2, silence: 1, probe: 0.3, linger: 0.5 }"
_LOAD = """
window.sdk = await import('/aldis.js');
window.wires = [];
window.Wire = class extends RTCPeerConnection {
  constructor(config) {
    super(config);
    wires.push(this);
  }
};
// Who may use a microphone anyway has the addresses of this machine told to peers; others get names for them.
for (const track of (await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()) track.stop();
"""
_START = f"""
const settings = {{ timing: quick ? {_QUICK} : {_STEADY}, backoff: {{ first: 0.1, most: 1 }} }};
const kept = keep && {{ identity: await sdk.Identity.loadOrCreate(name), pins: new sdk.IndexedDBPins() }};
const given = pem && {{ identity: await sdk.Identity.import(pem) }};
window.store = new sdk.NetworkStore({{ ...settings, RTCPeerConnection: Wire, path, ...kept, ...given }});
window.got = [];
window.changed = () => dispatchEvent(new Event('changed'));
store.onMessage((message) => changed(got.push(message)));
store.subscribe(changed);
await store.connectToSignaling(url ?? location.origin, name, {{ device, backoff: settings.backoff }});
"""
# `holds` may be a promise. Looked at again whenever the store or a test says that something has changed.
_UNTIL = """
await new Promise((resolve, reject) => {
  const look = async () => {
    try {
      const { signaling, peers } = store.state;
      if (HOLDS) resolve(removeEventListener('changed', look));
    } catch (error) {
      reject(error);
    }
  };
  addEventListener('changed', look);
  look();
});
"""


class Tab:
    """One window; `name` is that of the user whose store is in it, once it was started."""

    def __init__(self, person: Person, address: str = "/") -> None:
        self.person = person
        self.page = person.page
        self.address = address
        self.name = ""

    async def open(self) -> Tab:
        """Go to the page, and load the SDK there. Once more: reload."""
        await self.page.goto(self.address)
        await self.run(_LOAD)
        return self

    async def another(self) -> Tab:
        """A second window of the same browser."""
        tab = Tab(self.person, self.address)
        tab.page = await self.person.context.new_page()
        return await tab.open()

    async def start(
        self,
        name: str,
        *,
        keep: bool = False,
        device: str = "main",
        pem: str | None = None,
        url: str | None = None,
        quick: bool = False,
        path: str = "auto",
    ) -> Tab:
        """Make a store and register it.

        `path`: which paths may be used. `keep`: with the key and the pins that this browser has. `quick`: for tests
        that wait for the loss of a path.
        """
        self.name = name
        await self.run(_START, name=name, keep=keep, device=device, pem=pem, url=url, quick=quick, path=path)
        return self

    async def run(self, code: str, **values: Any) -> Any:
        """The value of the body of an asynchronous function with these arguments."""
        names = ", ".join(values)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.page.evaluate(f"async ({{ {names} }}) => {{ {code} }}", values)
        except TimeoutError:
            raise AssertionError(f"{self.name} did not get through {code!r}: {await self.state()}") from None

    async def state(self) -> Any:
        """How things stand in its store, for the message of a failure."""
        try:
            async with asyncio.timeout(5):
                return await self.page.evaluate(
                    "({ ...store.state, peers: { ...store.state.peers }, got: got.length })"
                )
        except (Error, TimeoutError) as error:
            return error

    async def get(self, expression: str) -> Any:
        """The value of an expression, once it has settled."""
        return await self.run(f"return {expression};")

    async def fails(self, expression: str, **values: Any) -> dict[str, Any]:
        """The error of an expression that throws or rejects: its name, message and data."""
        error = await self.run(
            f"try {{ await {expression}; }} catch (e) {{ return {{ ...e, name: e.name, message: e.message }}; }}",
            **values,
        )
        assert error is not None, f"{expression} did not fail"
        assert isinstance(error, dict)
        return error

    async def until(self, holds: str) -> None:
        """Wait until an expression of `signaling`, `peers`, and whatever else the page has, is true."""
        await self.run(_UNTIL.replace("HOLDS", holds))

    async def connected(self, user_id: str) -> None:
        """Wait until there is a direct connection."""
        await self.until(f"peers[{user_id!r}]?.state === 'connected' && peers[{user_id!r}].path !== 'relay'")

    async def sends(self, user_id: str, *values: Any) -> None:
        """Send, and wait until the peer has it all."""
        await self.run(
            "await Promise.all(values.map((value) => store.send(userId, value)));", userId=user_id, values=values
        )

    async def read(self, count: int) -> list[dict[str, Any]]:
        """The next messages."""
        await self.until(f"got.length >= {count}")
        messages = await self.get(f"got.splice(0, {count})")
        assert isinstance(messages, list)
        return messages

    async def contents(self, count: int) -> list[Any]:
        """What the next messages say."""
        return [message["content"] for message in await self.read(count)]


async def tabs(arrive: Arrive, *names: str, keep: bool = False, quick: bool = False, path: str = "auto") -> list[Tab]:
    """People who have their stores on the server already."""

    async def tab(name: str) -> Tab:
        return await (await Tab(await arrive()).open()).start(name, keep=keep, quick=quick, path=path)

    return await asyncio.gather(*map(tab, names))
