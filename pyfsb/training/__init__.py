# SPDX-License-Identifier: Apache-2.0
"""Pretraining and the one training loop; the only room that imports DeepSpeed."""
