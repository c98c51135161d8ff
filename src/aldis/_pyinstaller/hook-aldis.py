"""What PyInstaller cannot see in Aldis: modules imported by their names, the page, and imports in compiled code."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules


def _needed(name: str) -> bool:
    return not name.startswith("aldis._pyinstaller")


# The commands, and what `aldis.__getattr__` loads when it is first used.
hiddenimports = collect_submodules("aldis", filter=_needed, on_error="ignore")
# Extension modules, whose imports PyInstaller does not read.
for _package in ("aiofastnet", "picows"):
    hiddenimports += collect_submodules(_package)
# The page and the browser SDK, and the scripts for Redis.
datas = collect_data_files("aldis", includes=["web/**/*", "cli/words.txt", "backends/lua/*.lua", "cluster/lua/*.lua"])
