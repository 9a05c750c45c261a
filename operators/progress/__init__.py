# SPDX-License-Identifier: Apache-2.0
"""The progress server: takes step reports of the pods and keeps them in `status.progress`.

A small deployment beside the operator: `python -m operators.progress`. It speaks the protocol of
Kubeflow Trainer 2.x, so that `transformers` reports here without a change.
"""
