# SPDX-License-Identifier: Apache-2.0
"""The pod template of a gang: one container that passes Pod Security Standard `restricted`.

Every kind of job that can carry a gang wraps this template. Pure. Names of our own volumes begin
with `fsb-`, so that a resource's own volumes may be called anything else.
"""

from __future__ import annotations

from typing import Final

from kubernetes import client

from operators.gang import CONTAINER_UID, GRACE_SECONDS, SPEC_PATH, Gang
from operators.quantities import to_number
from operators.settings import OperatorSettings
from pyfsb.errors import ConfigError
from pyfsb.schema import Json

RUN_LABEL: Final = "fengshenbang.io/run"
KIND_LABEL: Final = "fengshenbang.io/kind"
CONTAINER: Final = "pytorch"
"""Name that the Training Operator looks for."""
PROGRESS_FOLDER: Final = "/var/run/secrets/fengshenbang"
TOKEN_SECONDS: Final = 3600
"""Life of a token for the progress server; the kubelet renews it before."""
RESTRICTED_VOLUMES: Final = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
)  # fmt: skip
"""Volumes that Pod Security Standard `restricted` allows."""
_SPEC_FOLDER, _, _SPEC_NAME = SPEC_PATH.rpartition("/")
_CA_FOLDER: Final = f"{_SPEC_FOLDER}-ca"
_SCRATCH: Final = ("/dev/shm", "/tmp")  # noqa: S108 - places in the pod
_CA_VARIABLES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_Mounted = tuple[client.V1Volume, client.V1VolumeMount]


def build_pod_template(gang: Gang, settings: OperatorSettings) -> client.V1PodTemplateSpec:
    """Return the template of every pod of a gang.

    Raises:
        ConfigError: See `check_pods`.
    """
    check_pods(gang)
    mounted = _volumes(gang, settings)
    pull_secrets = [client.V1LocalObjectReference(name=name) for name in settings.pull_secrets]
    spec = client.V1PodSpec(
        containers=[_container(gang, settings, [mount for _, mount in mounted])],
        volumes=[*(volume for volume, _ in mounted), *gang.extra_volumes],
        affinity=gang.affinity,
        automount_service_account_token=False,
        enable_service_links=False,
        image_pull_secrets=pull_secrets or None,
        node_selector=dict(gang.node_selector) or None,
        tolerations=list(gang.tolerations) or None,
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
    labels = {
        RUN_LABEL: gang.name,
        KIND_LABEL: gang.kind,
        "app.kubernetes.io/part-of": "fengshenbang",
        "app.kubernetes.io/component": "gang",
    }
    metadata = client.V1ObjectMeta(
        labels=labels, annotations={"sidecar.istio.io/inject": "false", **gang.pool.annotations}
    )
    return client.V1PodTemplateSpec(metadata=metadata, spec=spec)


def check_pods(gang: Gang) -> None:
    """Check what would only show when pods are made, where nobody looks.

    Raises:
        ConfigError: Shared memory does not fit into the memory, or a volume or mount of the
            resource's own cannot be.
    """
    memory, shared = gang.limits["memory"], gang.shared_memory
    if to_number(shared) >= to_number(memory):
        raise ConfigError(
            f"resources.sharedMemory = {shared}: /dev/shm is a part of resources.memory = "
            f"{memory}; lower it or raise the memory"
        )
    for volume in gang.extra_volumes:
        _check_volume(volume, is_restricted=not gang.pool.capabilities)
    names = {volume["name"] for volume in gang.extra_volumes}
    for mount in gang.extra_mounts:
        _check_mount(mount, names)
    for variable in gang.extra_env:
        if not variable.get("name"):
            raise ConfigError(f"pod.env: {variable} has no name")


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


def _check_volume(volume: Json, *, is_restricted: bool) -> None:
    name = str(volume.get("name", ""))
    kinds = sorted(set(volume) - {"name"})
    if not name or name.startswith("fsb-"):
        raise ConfigError(f"pod.volumes: name {name!r}; expected one that does not begin with fsb-")
    if is_restricted and any(kind not in RESTRICTED_VOLUMES for kind in kinds):
        raise ConfigError(
            f"pod.volumes: {name} is a {', '.join(kinds)}; pods may have "
            f"{', '.join(RESTRICTED_VOLUMES)} (Pod Security Standard restricted)"
        )


def _check_mount(mount: Json, names: set[str]) -> None:
    name, path = str(mount.get("name", "")), str(mount.get("mountPath", ""))
    if name not in names:
        raise ConfigError(f"pod.volumeMounts: {name!r} is none of pod.volumes")
    for ours in (_SPEC_FOLDER, _CA_FOLDER, PROGRESS_FOLDER):
        if f"{path.rstrip('/')}/".startswith(f"{ours}/") or not path.startswith("/"):
            raise ConfigError(
                f"pod.volumeMounts: mountPath {path!r}; expected an absolute path outside {ours}"
            )


def _container(
    gang: Gang, settings: OperatorSettings, mounts: list[client.V1VolumeMount]
) -> client.V1Container:
    return client.V1Container(
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
        volume_mounts=[*mounts, *gang.extra_mounts],
    )


def _environment(gang: Gang, settings: OperatorSettings) -> list[client.V1EnvVar | Json]:
    """Return the variables: ours, the chart's and the pool's, the resource's own; later wins."""
    cores = max(1, int(to_number(gang.limits["cpu"])))
    values = {
        # A rank whose peers are gone ends instead of waiting for them.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        # A container sees all cores of its node, whatever its limit.
        "OMP_NUM_THREADS": str(max(1, cores // gang.processes_per_pod)),
        **(dict.fromkeys(_CA_VARIABLES, f"{_CA_FOLDER}/ca.crt") if settings.certificates else {}),
        **_progress_variables(gang, settings),
        **gang.environment,
    }
    own = {variable["name"] for variable in gang.extra_env}
    given = [
        client.V1EnvVar(name=name, value=value)
        for name, value in sorted(values.items())
        if name not in own
    ]
    return [*given, *gang.extra_env]


def _progress_variables(gang: Gang, settings: OperatorSettings) -> dict[str, str]:
    """Return what makes our trainer and transformers report.

    Source: transformers 5.23, `KubeflowCallback`.
    """
    if not settings.progress_url:
        return {}
    place = f"{settings.progress_url.rstrip('/')}/v1/{gang.kind}/{gang.namespace}/{gang.name}"
    variables = {
        "KUBEFLOW_TRAINER_SERVER_URL": place,
        "KUBEFLOW_TRAINER_SERVER_TOKEN": f"{PROGRESS_FOLDER}/token",
    }
    if settings.progress_certificate:
        variables["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = f"{PROGRESS_FOLDER}/ca.crt"
    return variables


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


def _volumes(gang: Gang, settings: OperatorSettings) -> list[_Mounted]:
    """Return our volumes and where they are mounted; the resource's own scratch goes first."""
    own = {mount["mountPath"].rstrip("/") for mount in gang.extra_mounts}
    memory = client.V1EmptyDirVolumeSource(medium="Memory", size_limit=gang.shared_memory)
    mounted = [
        _mount("spec", _SPEC_FOLDER, config_map=_config_map(gang.spec_name)),
        *(
            _mount(path.rpartition("/")[2], path, is_writable=True, empty_dir=source)
            for path, source in zip(
                _SCRATCH, (memory, client.V1EmptyDirVolumeSource()), strict=True
            )
            if path not in own
        ),
    ]
    for number, claim in enumerate(gang.claims):
        source = client.V1PersistentVolumeClaimVolumeSource(claim_name=claim.name)
        mounted.append(
            _mount(f"claim-{number}", claim.path, is_writable=True, persistent_volume_claim=source)
        )
    if settings.certificates:
        mounted.append(_mount("ca", _CA_FOLDER, config_map=_config_map(settings.certificates)))
    if settings.progress_url:
        mounted.append(_mount("progress", PROGRESS_FOLDER, projected=_progress_source(settings)))
    return mounted


def _progress_source(settings: OperatorSettings) -> client.V1ProjectedVolumeSource:
    """Return a token that is good for the progress server only, and its authority."""
    token = client.V1ServiceAccountTokenProjection(
        audience=settings.progress_audience, expiration_seconds=TOKEN_SECONDS, path="token"
    )
    sources = [client.V1VolumeProjection(service_account_token=token)]
    if settings.progress_certificate:
        authority = client.V1ConfigMapProjection(
            name=settings.progress_certificate,
            items=[client.V1KeyToPath(key="ca.crt", path="ca.crt")],
            optional=True,  # without it there are no reports, but there is a training
        )
        sources.append(client.V1VolumeProjection(config_map=authority))
    return client.V1ProjectedVolumeSource(sources=sources)


def _config_map(name: str) -> client.V1ConfigMapVolumeSource:
    return client.V1ConfigMapVolumeSource(name=name)


def _mount(name: str, path: str, *, is_writable: bool = False, **source: object) -> _Mounted:
    volume = client.V1Volume(name=f"fsb-{name}", **source)
    mount = client.V1VolumeMount(
        name=f"fsb-{name}", mount_path=path, read_only=None if is_writable else True
    )
    return volume, mount
