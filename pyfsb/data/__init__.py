# SPDX-License-Identifier: Apache-2.0
"""Raw files to token shards, labelled files to validated rows; never imports torch."""
