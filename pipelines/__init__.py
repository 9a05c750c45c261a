# SPDX-License-Identifier: Apache-2.0
"""Kubeflow pipelines of thin Python components over the same stages; the only importer of kfp."""
