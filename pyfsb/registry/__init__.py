# SPDX-License-Identifier: Apache-2.0
"""Every model of the family as data; imports neither torch nor transformers."""

from __future__ import annotations

from pyfsb.registry.entry import Claim, ModelEntry
from pyfsb.registry.lookup import all_entries, find_entry

__all__ = ["Claim", "ModelEntry", "all_entries", "find_entry"]
