"""The page's modules for themselves, with what no honest program says: in a browser, without a tour to get there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from support.browser import Arrive, Person

FINGERPRINT = "aaaa-bbbb-cccc-dddd-eeee-ffff-gggg-hhhh"


async def there(arrive: Arrive) -> Person:
    """Somebody with the page open, which has not begun."""
    person = await arrive()
    await person.page.goto("/")
    return person


CALL = """
  const { Calling } = await import('/src/page/calling.js');
  const calling = new Calling(() => {});
  const sent = [];
  const call = { state: 'connected', direction: 'out', replaceStream: (stream) => sent.push(stream) };
  call.subscribe = (run) => (run(call), () => {});
  const start = (video) => calling.start({ name: 'bob', note() {} }, video, (stream) => (sent.push(stream), call));
"""


async def test_who_is_muted_while_the_microphone_opens_is_not_heard(arrive: Arrive) -> None:
    alice = await there(arrive)
    heard = await alice.page.evaluate(f"""async () => {{ {CALL}
      const going = start(false);
      calling.toggleMicrophone();
      await going;
      const before = sent[0].getAudioTracks().map((track) => track.enabled);
      calling.toggleMicrophone();
      return [before, sent[0].getAudioTracks().map((track) => track.enabled)];
    }}""")
    assert heard == [[False], [True]]


async def test_a_camera_that_is_unplugged_is_off_and_can_be_turned_on_again(arrive: Arrive) -> None:
    alice = await there(arrive)
    told = await alice.page.evaluate(f"""async () => {{ {CALL}
      await start(true);
      const before = calling.cameraOn;
      const [track] = sent[0].getVideoTracks();
      track.stop(); // which tells nobody; a browser that loses a camera does
      track.dispatchEvent(new Event('ended'));
      const lost = [before, calling.cameraOn, calling.note, sent.at(-1).getTracks().map(({{ kind }}) => kind)];
      await calling.toggleCamera();
      return [...lost, calling.cameraOn, calling.note, sent.at(-1).getTracks().map(({{ kind }}) => kind)];
    }}""")
    gone = "Your camera is gone: they do not see you any more."
    assert told == [True, False, gone, ["audio"], True, "", ["audio", "video"]]


async def test_what_is_wrong_in_an_invitation_or_in_memory_is_left_out(arrive: Arrive) -> None:
    alice = await there(arrive)
    read = "(text) => import('/src/page/invitation.js').then(({ readInvitation }) => readInvitation(text))"
    assert await alice.page.evaluate(read, f"#bob~{FINGERPRINT}") == {"name": "bob", "fingerprint": FINGERPRINT}
    for name in ("not%20a%20name", "a%2Fb", "%00", "x" * 129, "%"):
        assert await alice.page.evaluate(read, f"#{name}~{FINGERPRINT}") == "damaged", name

    async def kept(text: str) -> Any:
        return await alice.page.evaluate(
            """async (text) => {
              const { People } = await import('/src/page/people.js');
              localStorage.setItem('aldis.people.alice', text);
              return new People('alice', () => {}).list.map(({ name, verified }) => [name, verified]);
            }""",
            text,
        )

    verified = {"fingerprint": FINGERPRINT, "how": "compared"}
    for nonsense in ("", "{", "null", "5", '{"a":1}', '[null,{},{"name":5},{"name":"a b"},["bob"]]'):
        assert await kept(nonsense) == [], nonsense
    assert await kept('[{"name":"alice"},{"name":"bob"},{"name":"bob"}]') == [["bob", None]]
    for word in ('"yes"', "true", '{"fingerprint":"x","how":"compared"}', f'{{"fingerprint":"{FINGERPRINT}"}}'):
        assert await kept(f'[{{"name":"bob","verified":{word}}}]') == [["bob", None]], word
    good = f'{{"fingerprint":"{FINGERPRINT}","how":"compared"}}'
    assert await kept(f'[null,{{"name":"bob","verified":{good}}}]') == [["bob", verified]]


async def test_strangers_do_not_fill_the_list(arrive: Arrive) -> None:
    alice = await there(arrive)
    names = await alice.page.evaluate(
        """async (fingerprint) => {
          const { People } = await import('/src/page/people.js');
          const people = new People('alice', () => {});
          people.verify(people.get('verified'), { fingerprint, how: 'compared' });
          people.get('answered').wrote('yes?');
          people.get('writer').heard('hello');
          people.get('here').view = { state: 'connected', features: [] };
          people.show(people.get('open'));
          for (let n = 0; n < 1000; n++) people.get(`stranger${n}`);
          return people.names;
        }""",
        FINGERPRINT,
    )
    assert len(names) == 500
    assert names[:5] == ["verified", "answered", "writer", "here", "open"]
    assert names[-1] == "stranger999"


async def test_what_somebody_says_is_kept_and_shown_within_bounds(arrive: Arrive) -> None:
    alice = await there(arrive)
    large, laid_out, most, files, resent = await alice.page.evaluate("""async () => {
      const { Person } = await import('/src/page/person.js');
      const heard = (content) => {
        const person = new Person('mallory');
        person.heard(content);
        const [{ text, more }] = person.entries;
        return [text.length, more];
      };
      const nested = (depth, value) => (depth ? [nested(depth - 1, value)] : value);
      const circle = {};
      circle.circle = circle;
      const person = new Person('mallory');
      person.file({ direction: 'in' });
      for (let n = 0; n < 1000; n++) person.heard('x'.repeat(100_000));
      const mine = new Person('bob').wrote('y'.repeat(100_000));
      return [
        [heard('x'.repeat(100_000)), heard(nested(99, Array(800_000).fill(0))), heard(circle)],
        heard({ temperature: 21 }),
        person.entries.reduce((sum, { text }) => sum + (text?.length ?? 0), 0),
        person.entries.filter(({ kind }) => kind === 'file').length,
        [mine.text.length, mine.whole.length],
      ];
    }""")
    assert large == [[65_536, 34_464], [65_536, 1_600_199 - 65_536], [len("data that cannot be shown"), 0]]
    assert laid_out == [len('{\n  "temperature": 21\n}'), 0]
    assert 1_900_000 < most <= 2_000_000
    assert files == 1  # which nobody loses by what is said after it
    assert resent == [65_536, 100_000]


async def test_a_file_is_not_lost_by_what_is_said_after_it(arrive: Arrive) -> None:
    alice = await there(arrive)
    kept, unfinished, saved, entries = await alice.page.evaluate("""async () => {
      const { Person } = await import('/src/page/person.js');
      const person = new Person('mallory');
      person.file({ direction: 'in', state: 'done' });
      person.file({ direction: 'in', state: 'offered' });
      person.file({ direction: 'out', state: 'done' });
      const flood = () => { for (let n = 0; n < 1000; n++) person.heard('x'); };
      const files = () => person.entries.filter(({ kind }) => kind === 'file').map(({ transfer }) => transfer.state);
      flood();
      const before = [files(), person.isUnfinished(false)];
      for (const entry of person.entries.slice(0, 2)) Object.assign(entry, { saved: true });
      person.entries[1].transfer.state = 'declined';
      flood();
      return [...before, files(), person.entries.length];
    }""")
    assert (kept, unfinished) == (["done", "offered"], True)  # what was sent is with us anyway
    assert (saved, entries) == ([], 1000)


async def test_a_name_cannot_leave_its_isolation_from_the_words_beside_it(arrive: Arrive) -> None:
    alice = await there(arrive)
    written = await alice.page.evaluate("""async () => {
      const [{ named, nameProblem }, { bdi }] = await Promise.all([
        import('/src/page/words.js'), import('/src/page/dom.js')]);
      const name = 'bob\\u2069\\u202e\\u2066!';
      const long = `${'a'.repeat(60)}${'🦊'.repeat(60)}`;
      return [nameProblem(name), named(name), bdi(name).textContent, named('bob\\u05d0\\u2069'), named(long)];
    }""")
    assert written == [None, "bob!", "bob!", "\u2068bob\u05d0\u2069", f"\u2068{'a' * 30}…{'🦊' * 9}\u2069"]


async def test_a_fingerprint_is_read_as_the_protocol_says(arrive: Arrive) -> None:
    alice = await there(arrive)
    spellings = json.loads((Path(__file__).parents[1] / "vectors/fingerprints.json").read_text("utf-8"))["spellings"]
    read = """(texts) => import('/src/page/invitation.js').then(({ readFingerprint, readInvitation }) =>
      texts.map((text) => [readFingerprint(text), readInvitation(`#bob~${encodeURIComponent(text)}`)]))"""
    fingerprint = spellings["fingerprint"]
    for one, invitation in await alice.page.evaluate(read, spellings["read"]):
        assert (one, invitation) == (fingerprint, {"name": "bob", "fingerprint": fingerprint})
    for none, invitation in await alice.page.evaluate(read, spellings["refused"]):
        assert (none, invitation) == (None, "damaged")


async def test_strangers_ring_once_and_are_listed_from_then_on(arrive: Arrive) -> None:
    alice = await there(arrive)
    rings, notes, declined = await alice.page.evaluate("""async () => {
      const [{ Calling }, { Person }] = await Promise.all([
        import('/src/page/calling.js'), import('/src/page/person.js')]);
      const calling = new Calling(() => {});
      const declined = [];
      // Whether a call rings; it is given up at once.
      const call = (person, open = false) => {
        let tell = () => {};
        const call = { direction: 'in', state: 'ringing', reason: null, error: null, userId: person.name };
        call.subscribe = (run) => ((tell = () => run(call)), () => {});
        call.decline = (reason) => declined.push([person.name, reason]);
        const told = calling.ring(person, call, open);
        const rang = calling.incoming;
        call.state = 'ended';
        tell();
        return [told, rang];
      };
      const [friend, one, other] = ['friend', 'one', 'other'].map((name) => new Person(name));
      friend.wrote('hello');
      const rings = [call(friend), call(one), call(one), call(other), call(one, true), call(friend)];
      const { now } = performance;
      performance.now = () => now.call(performance) + 3 * 60_000;
      rings.push(call(other));
      return [rings, [one, other].map(({ entries }) => entries.map(({ text }) => text)), declined];
    }""")
    yes, no = [True, True], [False, False]
    assert rings == [yes, yes, no, no, yes, yes, yes]
    assert notes == [["Missed call from one"] * 3, ["Missed call from other"] * 2]
    assert declined == [["one", None], ["other", None]]


async def test_a_message_of_links_is_a_hundred_links_and_text(arrive: Arrive) -> None:
    alice = await there(arrive)
    show = """async (text) => {
      const [{ Person }, { textEntry }] = await Promise.all([
        import('/src/page/person.js'), import('/src/page/views/entries.js')]);
      const person = new Person('mallory');
      person.heard(text);
      const { element } = textEntry(person.entries[0], person, () => {});
      const [shown, rest] = element.querySelectorAll('p');
      const links = [...element.querySelectorAll('a')].map(({ textContent }) => textContent);
      return [links, shown.textContent, rest.textContent, shown.childNodes.length];
    }"""
    text = "http://aa/ " * 20_000
    links, shown, rest, nodes = await alice.page.evaluate(show, text)
    assert links == ["http://aa/"] * 100
    assert shown == text[:65_536]
    assert rest == f"… and {len(text) - 65_536:,} characters more, not shown here."
    assert nodes <= 201
    short = "see http://aa/b, or https://cc."
    links, shown, foot, _ = await alice.page.evaluate(show, short)
    assert (links, shown) == (["http://aa/b", "https://cc"], short)
    assert "more" not in foot


async def test_no_word_of_a_server_is_taken_for_more_than_a_word(arrive: Arrive) -> None:
    alice = await there(arrive)
    for word in ("constructor", "toString", "__proto__", "hasOwnProperty"):
        titles = await alice.page.evaluate(
            """async (word) => {
              const { explain } = await import('/src/page/words.js');
              const names = ['RequestFailed', 'ConnectionClosed', word];
              const faults = names.map((name) => ({ name, code: word, message: 'no' }));
              faults.push({ name: 'DeliveryFailed', reason: 'no', cause: { name: word, message: 'no' } });
              return faults.map((fault) => Object.values(explain(fault)));
            }""",
            word,
        )
        assert titles == [
            ["The server has refused that", "no"],
            ["The server has ended the connection", "no"],
            ["Something went wrong", "No."],
            ["It did not arrive", "No."],
        ]


async def test_why_a_peer_refuses_is_told_in_words(arrive: Arrive) -> None:
    alice = await there(arrive)
    told = await alice.page.evaluate("""async () => {
      const { explain } = await import('/src/page/words.js');
      const codes = ['not-accepted', 'key-refused', 'bad-proof', 'too-many-peers', 'constructor'];
      return codes.map((code) => explain({ name: 'PeerRefused', userId: 'bob', code }).title);
    }""")
    plain = [re.sub(r"[^ -~]", "", title) for title in told]  # without what isolates a name
    busy = "bob cannot take another connection now"
    assert plain == [
        "bob does not accept this connection",
        "bob knows you by another key",
        "bob could not check that it is you",
        busy,
        busy,
    ]


async def test_a_limit_is_told_with_what_was_too_much_and_for_how_long(arrive: Arrive) -> None:
    alice = await there(arrive)
    told = await alice.page.evaluate("""async () => {
      const { explain } = await import('/src/page/words.js');
      const limited = { name: 'RequestFailed', code: 'rate-limited' };
      return [
        { ...limited, request: 'register', retryAfter: 7200 },
        { ...limited, request: 'discover', retryAfter: 0 },
        { ...limited, request: 'toString', retryAfter: 600 },
        { ...limited, request: null },
        { name: 'PeerRefused', userId: 'bob', code: 'rate-limited', retryAfter: 2.1 },
        { name: 'PeerRefused', userId: 'bob', code: 'busy', retryAfter: 5 },
        { name: 'OverLimits', retryAfter: 75 },
      ].map((fault) => Object.values(explain(fault)));
    }""")
    assert told == [
        ["Too many new names from your network", "Try again in 2 hours."],
        ["Too many searches for people", "Try again in 1 s."],
        ["Too many requests from this page", "Try again in 10 minutes."],
        ["Too many requests from this page", "Try again in a while."],
        ["Too many calls to bob", "Trying again in 3 s."],
        ["bob cannot take another connection now", "Trying again in 5 s."],
        [
            "This page has asked too much of the server",
            "The server has ended the connection. The page connects again by itself in about a minute. "
            "Whoever you are connected with hears you as before.",
        ],
    ]


async def test_why_a_message_or_a_file_did_not_arrive_is_told_in_the_words_of_its_cause(arrive: Arrive) -> None:
    alice = await there(arrive)
    told = await alice.page.evaluate("""async () => {
      const { explain } = await import('/src/page/words.js');
      const cause = { name: 'ConnectionClosed', code: 4001, message: 'replaced by a newer connection' };
      const fault = { reason: 'the file is gone' };
      return ['DeliveryFailed', 'TransferFailed'].flatMap((name) => [
        explain({ name, ...fault, cause }).text,
        explain({ name, ...fault, cause: { name: 'Unheard', message: 'x' } }).text,
        explain({ name, ...fault }).text,
      ]);
    }""")
    assert told == 2 * ["Your name is in use in another window.", "The file is gone.", "The file is gone."]


async def test_a_key_is_accepted_only_as_it_was_seen(arrive: Arrive) -> None:
    alice = await there(arrive)
    kept = await alice.page.evaluate("""async () => {
      const { Session } = await import('/src/page/session.js');
      const session = new Session(() => {}, () => {});
      const bob = session.people.get('bob');
      const seen = { error: { offered: 'one' }, before: 'x', after: 'one' };
      const next = { error: { offered: 'two' }, before: 'x', after: 'two' };
      bob.newKey = next; // which came while the other one was still on the screen
      await session.acceptKey(bob, seen);
      return bob.newKey === next;
    }""")
    assert kept
