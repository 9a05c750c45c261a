# SPDX-License-Identifier: Apache-2.0
"""Every model of the family as data; imports neither torch nor transformers."""

from __future__ import annotations

from pyfsb.registry.catalogue import (
    CatalogueRow,
    all_catalogue_rows,
    all_headings,
    find_catalogue,
    find_model,
)
from pyfsb.registry.entry import Claim, ModelEntry, Score
from pyfsb.registry.lookup import all_entries, find_entry, search_entries

__all__ = [
    "CatalogueRow",
    "Claim",
    "ModelEntry",
    "Score",
    "all_catalogue_rows",
    "all_entries",
    "all_headings",
    "find_catalogue",
    "find_entry",
    "find_model",
    "search_entries",
]
