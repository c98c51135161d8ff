"""The version of this package; not read from its metadata, which a frozen program does not have."""

from typing import Final

VERSION: Final = "0.1.0"
