"""Where PyInstaller finds the hooks of this package: it asks the entry point `hook-dirs` of `pyinstaller40`.

So `pyinstaller --onefile program.py` works as it stands for a program that uses Aldis.
https://pyinstaller.org/en/stable/hooks.html#providing-pyinstaller-hooks-with-your-package
"""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folders with hooks: this one."""
    return [str(Path(__file__).parent)]
