# SPDX-License-Identifier: Apache-2.0
"""Text in, typed results out: the one place where a model's outputs are decoded."""
