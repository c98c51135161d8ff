"""How hatchling makes `aldis-server` from the tree of `aldis`: the same files, and the same metadata without wrtc."""

import tomllib
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "aldis"


class ServerMetadata(MetadataHookInterface):
    """Fills in what pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, object]) -> None:
        """Called by hatchling, with the metadata of pyproject.toml."""
        whole = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        for field in metadata["dynamic"]:
            if field in whole:
                metadata[field] = whole[field]
        metadata["readme"] = {"content-type": "text/markdown", "text": (ROOT / "docs/install.md").read_text("utf-8")}
        metadata["dependencies"] = [one for one in whole["dependencies"] if not one.startswith("wrtc")]


class ServerFiles(BuildHookInterface):
    """Puts the files of the package in, without those for developers, as pyproject.toml of the tree has it."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Called by hatchling before it builds."""
        files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        build_data["force_include"] = {
            str(path): str(path.relative_to(SOURCE.parent)) for path in files if not path.name.endswith(".d.ts")
        }
