# SPDX-License-Identifier: Apache-2.0
"""The model server: KServe's own, with our predictors behind it."""
