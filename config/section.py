"""What every section of the configuration is."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every mapping in the file: an unknown key is an error."""
