"""How hatchling makes `aldis-server` from the tree of `aldis`: the same files, and the same metadata without wrtc.

An sdist of it carries what these hooks read: the package, and `pyproject.toml` of the tree under another name.
"""

import tomllib
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = Path(__file__).parent
IN_TREE = (HERE.parents[1] / "src" / "aldis").is_dir()
ROOT = HERE.parents[1] if IN_TREE else HERE
WHOLE = ROOT / ("pyproject.toml" if IN_TREE else "aldis.toml")
GUIDE = ROOT / "docs" / "install.md"
SOURCE = ROOT / "src" / "aldis"
SDK = ROOT / "sdk" / "src"  # in the tree a link in the package leads there, which `rglob` does not follow


class ServerMetadata(MetadataHookInterface):
    """Fills in what pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, object]) -> None:
        """Called by hatchling, with the metadata of pyproject.toml."""
        whole = tomllib.loads(WHOLE.read_text("utf-8"))["project"]
        for field in metadata["dynamic"]:
            if field in whole:
                metadata[field] = whole[field]
        metadata["readme"] = {"content-type": "text/markdown", "text": GUIDE.read_text("utf-8")}
        metadata["dependencies"] = [one for one in whole["dependencies"] if not one.startswith("wrtc")]


class ServerFiles(BuildHookInterface):
    """Puts the files of the package in, without those for developers, as pyproject.toml of the tree has it."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Called by hatchling before it builds."""
        files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        package = {path: path.relative_to(SOURCE.parent) for path in files if not path.name.endswith(".d.ts")}
        if IN_TREE:
            sources = (path for path in SDK.rglob("*") if path.is_file())
            package |= {path: Path("aldis/web/src/sdk") / path.relative_to(SDK) for path in sources}
        if self.target_name == "sdist":
            package = {path: Path("src") / place for path, place in package.items()}
            package |= {WHOLE: Path("aldis.toml"), GUIDE: Path("docs/install.md")}
        build_data["force_include"] = {str(path): str(place) for path, place in package.items()}
