# SPDX-License-Identifier: Apache-2.0
"""Scores of many runs in one place: ranked, with intervals, as Markdown, JSON and HTML."""
