"""The version, by itself: reading it from the installed package would load a tenth of the standard library."""

from __future__ import annotations

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
