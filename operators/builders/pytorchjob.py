# SPDX-License-Identifier: Apache-2.0
"""A gang as a PyTorchJob of the Training Operator v1: one Master, the rest Workers.

What that operator does not do is not asked of it: whole-gang restarts, deadlines and restart
budgets are decided by `operators.decide`. Pure.

Source: kubeflow.org/v1 PyTorchJob, Training Operator 1.9.
"""

from __future__ import annotations

from typing import Any

from kubeflow.training import (
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
    KubeflowOrgV1RunPolicy,
)
from kubernetes import client

from operators.builders.pods import KIND_LABEL, RUN_LABEL, build_pod_template
from operators.gang import Gang
from operators.settings import OperatorSettings


def build_pytorchjob(
    gang: Gang, settings: OperatorSettings, *, is_suspended: bool
) -> dict[str, Any]:
    """Return the manifest of a gang's PyTorchJob.

    Args:
        gang: What to run.
        settings: The chart's settings.
        is_suspended: True has no pods; turning it off starts the whole gang anew.
    """
    template = build_pod_template(gang, settings)
    counts = {"Master": 1, "Worker": gang.num_pods - 1}
    job = KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=client.V1ObjectMeta(
            name=gang.name,
            namespace=gang.namespace,
            labels={RUN_LABEL: gang.name, KIND_LABEL: gang.kind},
        ),
        spec=KubeflowOrgV1PyTorchJobSpec(
            nproc_per_node=str(gang.processes_per_pod),
            run_policy=KubeflowOrgV1RunPolicy(clean_pod_policy="Running", suspend=is_suspended),
            pytorch_replica_specs={
                # ExitCode: below 128 the job fails for good, above only that pod is replaced,
                # which `decide` notices and answers with a restart of all.
                role: KubeflowOrgV1ReplicaSpec(
                    replicas=count, restart_policy="ExitCode", template=template
                )
                for role, count in counts.items()
                if count
            },
        ),
    )
    manifest: dict[str, Any] = client.ApiClient().sanitize_for_serialization(job)
    return manifest
