# SPDX-License-Identifier: Apache-2.0
"""Fine-tune, predict, score: CLUE-style tasks and the user's own, with honest figures."""
