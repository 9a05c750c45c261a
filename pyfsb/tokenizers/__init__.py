# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that `transformers` cannot load by itself, and lexicons that stand beside them."""
