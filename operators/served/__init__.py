# SPDX-License-Identifier: Apache-2.0
"""ServedModel: a checkpoint that passed its gate, behind an InferenceService of KServe."""
