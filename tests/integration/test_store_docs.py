"""The examples in docs/store.md and in examples/ work as they stand."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aldis import NetworkStore
from support.patience import PATIENCE
from support.peers import nothing_left_behind
from support.ports import free_port
from support.stores import running_server

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


async def test_the_examples_in_the_documentation_run_one_after_the_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (downloads := tmp_path / "downloads").mkdir()
    text = (ROOT / "docs" / "store.md").read_text()
    blocks = [(text[: match.start(1)].count("\n"), match[1]) for match in BLOCK.finditer(text)]
    assert len(blocks) >= 8
    async with nothing_left_behind(), running_server() as server:
        namespace: dict[str, object] = {"url": server.url, "downloads": downloads}
        for line, block in blocks:
            # Padded, so that a traceback shows the line of the page.
            code = compile("\n" * line + block, "docs/store.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            async with asyncio.timeout(PATIENCE):
                outcome = eval(code, namespace)
                if inspect.isawaitable(outcome):
                    await outcome
    said = capsys.readouterr().out
    assert "alice [1]: 'hello'" in said
    assert "alice [2]: b'\\x00\\x01'" in said
    assert "alice [3]: {'all': ['the', 'rest', 'is', 'JSON'], 'n': 1}" in said
    assert "server: connected, peers: {'bob': 'connected'}" in said
    assert "nobody has ever registered the name carol" in said
    assert "bob got for the callback" in said
    assert "blocked: bob" in said
    assert re.search(r"^direct udp (host|prflx) (host|prflx)$", said, re.MULTILINE)
    assert f"bob has another key: {namespace['bob'].identity.fingerprint}" in said  # type: ignore[attr-defined]
    assert "holiday.txt: done, 4000 of 4000 bytes" in said
    assert "declined: this program takes no files" in said


async def test_the_example_programs_talk_to_each_other() -> None:
    async with running_server() as server:
        echo = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "examples" / "echo.py"), server.url, "echo", stdout=asyncio.subprocess.PIPE
        )
        try:
            ask = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "examples" / "ask.py"),
                *(server.url, "me", "echo", "hello there"),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE):
                said, _ = await ask.communicate()
            assert ask.returncode == 0
            lines = said.decode().splitlines()
            assert re.fullmatch(r"delivered to echo, whose key is (\w{4}-){7}\w{4}", lines[0])
            assert lines[1] == "echo: hello there"
        finally:
            echo.terminate()
            out, _ = await echo.communicate()
        assert "me: 'hello there'" in out.decode()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_without_arguments_says_how_to_run_it(example: Path) -> None:
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: {example.name} ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("echo.py", "echo"), ("ask.py", "me", "echo", "hello")], ids=lambda words: words[0])
def test_an_example_without_a_server_says_so_in_one_line(words: tuple[str, ...]) -> None:
    example, *rest = words
    command = [sys.executable, str(ROOT / "examples" / example), f"ws://127.0.0.1:{free_port()}", *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


async def test_the_program_in_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (program,) = [match[1] for match in BLOCK.finditer((ROOT / "README.md").read_text())]
    async with running_server() as server, NetworkStore() as bob, NetworkStore() as alice:
        # Who has seen it in a minute has used these names before, with other keys.
        await bob.connect_to_signaling(server.url, "bob")
        await alice.connect_to_signaling(server.url, "alice")
        assert "ws://127.0.0.1:8080" in program
        dave = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-u", "-c", program.replace("ws://127.0.0.1:8080", server.url)),
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,  # where it keeps its key
        )
        assert dave.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                message = await anext(bob.messages())
                assert (message.sender, message.content) == ("dave", {"hello": "world"})
                bob.send("dave", "hello yourself")
                assert await dave.stdout.readline() == b"bob hello yourself\n"
        finally:
            dave.kill()
            await dave.wait()
