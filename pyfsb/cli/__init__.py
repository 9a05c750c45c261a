# SPDX-License-Identifier: Apache-2.0
"""The `fsb` command: arguments in, tables out; one file per noun, no work of its own."""
