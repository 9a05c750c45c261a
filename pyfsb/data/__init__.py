# SPDX-License-Identifier: Apache-2.0
"""From raw files to token shards, and from labelled files to validated rows; never imports torch."""
