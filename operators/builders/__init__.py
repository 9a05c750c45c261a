# SPDX-License-Identifier: Apache-2.0
"""Manifests from typed descriptions; pure, tested against the schemas of the installed CRDs."""
