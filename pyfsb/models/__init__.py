# SPDX-License-Identifier: Apache-2.0
"""Transformers models of registry entries: built, loaded, and given their loss heads."""
