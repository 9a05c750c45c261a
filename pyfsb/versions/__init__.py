# SPDX-License-Identifier: Apache-2.0
"""Model versions: which checkpoint a name such as `sentiment@production` stands for, and why.

A store is a folder or s3:// prefix. Versions are numbered, written once and never changed; an
alias is a small document that is moved by compare-and-swap and keeps its whole history. Called by
the command line, the stages' start, the loader and the operator. Never copies weights.

    STORE/NAME/versions/000001.json
    STORE/NAME/aliases/ALIAS.json
"""

from __future__ import annotations

from pyfsb.versions.documents import Alias, ModelVersion, Move, VersionScore
from pyfsb.versions.references import is_reference, locate, resolve
from pyfsb.versions.store import STORE_VARIABLE, find_store, list_aliases, list_versions
from pyfsb.versions.writing import promote, register, rollback

__all__ = [
    "STORE_VARIABLE",
    "Alias",
    "ModelVersion",
    "Move",
    "VersionScore",
    "find_store",
    "is_reference",
    "list_aliases",
    "list_versions",
    "locate",
    "promote",
    "register",
    "resolve",
    "rollback",
]
