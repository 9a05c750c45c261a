# SPDX-License-Identifier: Apache-2.0
"""The operator: custom resources in, gangs of pods out.

`crds` writes the CRDs from `pyfsb.resources`. Imports registry, records, resources, storage,
config and engines of pyfsb and nothing heavier.
"""
