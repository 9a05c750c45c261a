# SPDX-License-Identifier: Apache-2.0
"""The pod template of a gang: one container that passes Pod Security Standard `restricted`.

Every kind of job that can carry a gang wraps this template. Pure.
"""

from __future__ import annotations

from typing import Final

from kubernetes import client

from operators.gang import CONTAINER_UID, GRACE_SECONDS, SPEC_PATH, Gang
from operators.settings import OperatorSettings

RUN_LABEL: Final = "fengshenbang.io/run"
KIND_LABEL: Final = "fengshenbang.io/kind"
CONTAINER: Final = "pytorch"
"""Name that the Training Operator looks for."""
_SPEC_FOLDER, _, _SPEC_NAME = SPEC_PATH.rpartition("/")


def build_pod_template(gang: Gang, settings: OperatorSettings) -> client.V1PodTemplateSpec:
    """Return the template of every pod of a gang."""
    volumes, mounts = _volumes(gang, settings)
    container = client.V1Container(
        name=CONTAINER,
        image=gang.image,
        image_pull_policy=settings.pull_policy,
        command=list(gang.command),
        env=_environment(gang, settings),
        env_from=_credentials(gang),
        resources=client.V1ResourceRequirements(
            limits=dict(gang.limits), requests=dict(gang.limits)
        ),
        security_context=client.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=client.V1Capabilities(
                drop=["ALL"], add=list(gang.pool.capabilities) or None
            ),
        ),
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=mounts,
    )
    spec = client.V1PodSpec(
        containers=[container],
        volumes=volumes,
        automount_service_account_token=False,
        enable_service_links=False,
        image_pull_secrets=[
            client.V1LocalObjectReference(name=name) for name in settings.pull_secrets
        ]
        or None,
        node_selector=dict(gang.pool.node_selector) or None,
        tolerations=list(gang.pool.tolerations) or None,
        priority_class_name=gang.priority_class,
        runtime_class_name=gang.pool.runtime_class,
        service_account_name=gang.service_account,
        security_context=client.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=CONTAINER_UID,
            run_as_group=CONTAINER_UID,
            fs_group=CONTAINER_UID,
            seccomp_profile=client.V1SeccompProfile(type="RuntimeDefault"),
        ),
        termination_grace_period_seconds=GRACE_SECONDS,
        topology_spread_constraints=_spread(gang),
    )
    metadata = client.V1ObjectMeta(
        labels={RUN_LABEL: gang.name},
        annotations={"sidecar.istio.io/inject": "false", **gang.pool.annotations},
    )
    return client.V1PodTemplateSpec(metadata=metadata, spec=spec)


def build_spec_map(gang: Gang) -> client.V1ConfigMap:
    """Return the ConfigMap with the gang's run spec; immutable, its name follows its content."""
    return client.V1ConfigMap(
        api_version="v1",
        kind="ConfigMap",
        metadata=client.V1ObjectMeta(
            name=gang.spec_name, namespace=gang.namespace, labels={RUN_LABEL: gang.name}
        ),
        immutable=True,
        data={_SPEC_NAME: gang.spec_text},
    )


def _environment(gang: Gang, settings: OperatorSettings) -> list[client.V1EnvVar]:
    values = dict(gang.environment)
    if settings.certificates:
        values["AWS_CA_BUNDLE"] = f"{_SPEC_FOLDER}-ca/ca.crt"
    return [client.V1EnvVar(name=name, value=value) for name, value in sorted(values.items())]


def _credentials(gang: Gang) -> list[client.V1EnvFromSource] | None:
    if not gang.credentials_secret:
        return None
    reference = client.V1SecretEnvSource(name=gang.credentials_secret)
    return [client.V1EnvFromSource(secret_ref=reference)]


def _spread(gang: Gang) -> list[client.V1TopologySpreadConstraint] | None:
    """Spread the pods of a gang: two on one node share its network and its fate."""
    if gang.num_pods == 1:
        return None
    selector = client.V1LabelSelector(match_labels={RUN_LABEL: gang.name})
    return [
        client.V1TopologySpreadConstraint(
            max_skew=1,
            topology_key=gang.pool.spread_key,
            when_unsatisfiable="ScheduleAnyway",
            label_selector=selector,
        )
    ]


def _volumes(
    gang: Gang, settings: OperatorSettings
) -> tuple[list[client.V1Volume], list[client.V1VolumeMount]]:
    """Return volumes and where they are mounted."""
    memory = client.V1EmptyDirVolumeSource(medium="Memory", size_limit=gang.shared_memory)
    pairs = [
        (
            client.V1Volume(
                name="spec", config_map=client.V1ConfigMapVolumeSource(name=gang.spec_name)
            ),
            client.V1VolumeMount(name="spec", mount_path=_SPEC_FOLDER, read_only=True),
        ),
        (
            client.V1Volume(name="shm", empty_dir=memory),
            client.V1VolumeMount(name="shm", mount_path="/dev/shm"),  # noqa: S108
        ),
        (
            client.V1Volume(name="tmp", empty_dir=client.V1EmptyDirVolumeSource()),
            client.V1VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108
        ),
    ]
    for claim in gang.claims:
        source = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim.name)
        name = f"claim-{claim.name}"
        pairs.append(
            (
                client.V1Volume(name=name, persistent_volume_claim=source),
                client.V1VolumeMount(name=name, mount_path=claim.path),
            )
        )
    if settings.certificates:
        source = client.V1ConfigMapVolumeSource(name=settings.certificates)
        pairs.append(
            (
                client.V1Volume(name="ca", config_map=source),
                client.V1VolumeMount(name="ca", mount_path=f"{_SPEC_FOLDER}-ca", read_only=True),
            )
        )
    return [volume for volume, _ in pairs], [mount for _, mount in pairs]
