"""The benchmark, all of it: `python -m benchmarks.run` from the project's folder (`make bench`).

It runs the parts, prints the tables and keeps the numbers in benchmarks/results/. What is measured, how, and what came
of it is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import report
from benchmarks.load import campaign, process, servers
from benchmarks.load.campaign import FULL, QUICK, ROOT, Plan
from benchmarks.load.servers import RELAYS, Contender
from benchmarks.micro import codec, envelopes, frames, hub, proofs

RESULTS: Final = ROOT / "benchmarks" / "results"
README: Final = ROOT / "benchmarks" / "README.md"
MARKS: Final = ("<!-- results: begin -->", "<!-- results: end -->")
PARTS: Final = ("relay", "register", "opening", "micro")
# Who takes part in what: SQLite makes no difference to relaying, the ack none to registration.
RELAYING: Final = (servers.PICOWS, servers.ALDIS, servers.ALDIS_COMPLETE, servers.WS, servers.PEERJS)
REGISTERING: Final = (servers.PICOWS, servers.ALDIS, servers.ALDIS_SQLITE, servers.WS, servers.PEERJS)
PACKAGES: Final = ("aldis", "picows", "aiofastnet", "uvloop", "msgspec", "cryptography", "PyNaCl", "wrtc", "aiortc")

EXIT_FAILED: Final = 1
EXIT_MISSING: Final = 69  # sysexits.h: EX_UNAVAILABLE


class NotHere(Exception):
    """Something that has to be installed is not; the text says what to do."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure Aldis beside the PeerJS server, a minimal relay on ws, and bare picows.",
        epilog="Takes about five minutes; use nothing else on the machine meanwhile.",
    )
    parser.add_argument("--quick", action="store_true", help="about a minute, with fewer and shorter rounds")
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s: those to run, with commas between")
    names = ",".join(contender.name for contender in servers.ALL)
    parser.add_argument("--relays", default=names, help="of %(default)s: those that take part")
    parser.add_argument(
        "--before", type=Path, metavar="COMMAND", help="also the `aldis` of another environment: what a change costs"
    )
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--seconds", type=float, help="how long one slice takes")
    parser.add_argument("--pairs", type=int, help="pairs of connections that relay to each other (100)")
    parser.add_argument("--connections", type=int, help="connections that register and stay (2,000)")
    parser.add_argument("--sleepy", action="store_true", help="let the load generator sleep (see the README)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the numbers")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--readme", action="store_true", help="also put the tables into benchmarks/README.md")
    options = parser.parse_args(argv)
    options.parts = options.parts.split(",")
    options.relays = options.relays.split(",")
    for name, known in (("parts", PARTS), ("relays", names.split(","))):
        for value in getattr(options, name):
            if value not in known:
                parser.error(f"--{name}: {value!r} is none of {', '.join(known)}")
    if options.before is not None and not os.access(options.before, os.X_OK):
        parser.error(f"--before: {options.before} is not a command")
    return options


def command_of(options: argparse.Namespace) -> str:
    """The command, with what changes the measurement and without where its numbers go."""
    words = ["python -m benchmarks.run"]
    words += [f"--{name}" for name in ("quick", "sleepy") if getattr(options, name)]
    words += [
        f"--{name} {getattr(options, name)}"
        for name in ("rounds", "seconds", "pairs", "connections")
        if getattr(options, name)
    ]
    words += [f"--parts {','.join(options.parts)}"] if tuple(options.parts) != PARTS else []
    everybody = [contender.name for contender in servers.ALL]
    words += [f"--relays {','.join(options.relays)}"] if options.relays != everybody else []
    words += ["--before ..."] if options.before is not None else []
    return " ".join(words)


def plan_of(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = replace(plan, rounds=options.rounds, register_rounds=min(plan.register_rounds, options.rounds))
    if options.seconds:
        plan = replace(plan, saturated=options.seconds, paced=options.seconds, warm=min(plan.warm, options.seconds))
    if options.pairs:
        # The same rate for a connection, so that few pairs are not loaded more.
        plan = replace(plan, pairs=options.pairs, rate=max(1, plan.rate * options.pairs // plan.pairs))
    if options.sleepy:
        plan = replace(plan, awake=False)
    if options.connections:
        plan = replace(plan, connections=options.connections)
    return plan


def prepare(contenders: Sequence[Contender], console: Console) -> None:
    """Install the relays from npm, from their lock, when they are not there yet."""
    if not any(contender.on_node for contender in contenders):
        return
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            raise NotHere(
                f"{command} is missing: the relays to compare with run on Node 18 or later. Install it, or leave them "
                "out with --relays aldis,aldis-complete,aldis-sqlite,picows"
            )
    lock = json.loads((RELAYS / "package-lock.json").read_text())
    installed = RELAYS / "node_modules" / ".package-lock.json"
    if installed.exists():
        present = json.loads(installed.read_text())["packages"]
        wanted = {path: entry["version"] for path, entry in lock["packages"].items() if path}
        if wanted == {path: entry["version"] for path, entry in present.items()}:
            return
    console.print("Installing the relays from npm (once) ...")
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=RELAYS, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotHere(f"npm could not install the relays:\n{done.stderr[-1000:]}")


def commit() -> str:
    """The commit that is measured, marked when the source differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        name = git("rev-parse", "--short=10", "HEAD")
        return f"{name}-changed" if git("status", "--porcelain", "--", "src", "benchmarks/load") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(contenders: Sequence[Contender]) -> dict[str, str]:
    """Of everything that was measured or measured with."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if any(contender.on_node for contender in contenders):
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        found["Node"] = node.removeprefix("v")
        for name in ("peer", "ws"):
            found[name] = json.loads((RELAYS / "node_modules" / name / "package.json").read_text())["version"]
    return found


def opening(rounds: int, console: Console) -> dict[str, Any] | None:
    """Time openings where nothing but loopback exists, or with this machine's interfaces where that cannot be made."""
    command = [sys.executable, "-m", "benchmarks.load.opening", str(rounds)]
    network = "nothing but lo"
    done = subprocess.run(
        [str(ROOT / "tools" / "netns.sh"), *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == EXIT_MISSING:
        network = "this machine's interfaces"
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        console.print(f"[red]opening channels failed:[/red]\n{done.stderr[-2000:]}", highlight=False)
        return None
    return {"network": network, **json.loads(done.stdout)}


def micro(seconds: float) -> dict[str, Any]:
    times = [case for module in (codec, hub, frames, proofs) for case in module.measure(seconds)]
    return {
        "times": [asdict(case) for case in times],
        "sizes": [asdict(envelope) for envelope in envelopes.measure()],
        "session_bytes": hub.session_bytes(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    # Into a file or a pipe, without the 80 columns that rich takes for what is no terminal.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    if not sys.platform.startswith("linux"):
        console.print("The benchmark reads processor time and memory of other processes from the Linux kernel.")
        return EXIT_MISSING
    plan = plan_of(options)
    relaying = [contender for contender in RELAYING if contender.name in options.relays]
    registering = [contender for contender in REGISTERING if contender.name in options.relays]
    if options.before is not None:
        before = replace(servers.BEFORE, program=str(options.before.absolute()))
        relaying.append(before)
        registering.append(before)
    contenders = [*relaying, *registering]
    cores = process.choose_cores()
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:4.0f} s[/dim]  {line}", highlight=False)

    if cores.server == cores.generator:
        say("[yellow]only one core: server and load generator share it, so rates and latencies mean little[/yellow]")
    failed = False
    try:
        prepare(contenders, console)
        document: dict[str, Any] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": commit(),
            "command": command_of(options),
            "machine": process.machine(),
            "versions": versions(contenders),
            "plan": asdict(plan),
        }
        if "relay" in options.parts:
            document["relay"] = campaign.relay(relaying, plan, cores, say)
        if "register" in options.parts:
            document["register"] = campaign.register(registering, plan, cores, say)
        if "opening" in options.parts:
            say("opening data channels")
            found = opening(5 if options.quick else 15, console)
            failed = found is None
            if found is not None:
                document["opening"] = found
        if "micro" in options.parts:
            say("micro benchmarks")
            document["micro"] = micro(0.3 if options.quick else 1.0)
    except (NotHere, servers.ServerFailed, campaign.JobFailed) as error:
        console.print(f"[red]{error}[/red]", highlight=False, markup=True)
        return EXIT_MISSING if isinstance(error, NotHere) else EXIT_FAILED
    document["targets"] = report.as_json(report.targets(document))
    report.show(document, console)
    if not options.no_save:
        save(document, options.results, console)
    if options.readme:
        put_into_readme(report.markdown(document))
    return EXIT_FAILED if failed else 0


def save(document: dict[str, Any], folder: Path, console: Console) -> None:
    """Keep the numbers, and the same as Markdown beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{document['date'][:10]}-{document['commit']}"
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / f"{name}.md").write_text(report.markdown(document) + "\n")
    console.print(f"Kept as {name}.json and {name}.md in {folder.name}/.", highlight=False)


def put_into_readme(tables: str) -> None:
    """Replace what stands between the marks in benchmarks/README.md."""
    text = README.read_text()
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    README.write_text(f"{before}{begin}\n\n{tables}\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
