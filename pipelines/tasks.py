# SPDX-License-Identifier: Apache-2.0
"""Settings that every task of our pipelines has, applied when a pipeline is compiled.

Launchers only wait for a custom resource: they are retried and find it again, they run without
rights on their node, and what is set on them goes to the pods that they start. So they ask for no
resources themselves: the namespace's LimitRange gives them some.
"""

from __future__ import annotations

from typing import Final

from kfp import dsl, kubernetes

from pipelines import environment

USER_ID: Final = 65532
"""User and group of every image."""
PASSTHROUGHS: Final = [
    dsl.TaskConfigField.RESOURCES,
    dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
    dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
    dsl.TaskConfigField.KUBERNETES_AFFINITY,
    dsl.TaskConfigField.KUBERNETES_VOLUMES,
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
]
"""What goes to the pods that a launcher starts; variables reach the launcher too."""
LONGEST_SECONDS: Final = 60 * 86400
"""A launcher waits for at most 60 days."""
_SHORT_SECONDS: Final = 900


def as_launcher(task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
    """Set up a task that waits for a custom resource."""
    # Tries are for launchers that the cluster has lost; an error that stays is told by each of
    # them, so they follow soon. Argo counts the longest back-off from the first try's start: with
    # KFP's default of an hour a launcher that has waited longer would never be tried again.
    task.set_retry(
        num_retries=4,
        backoff_duration="20s",
        backoff_factor=1.0,
        backoff_max_duration=f"{LONGEST_SECONDS}s",
    )
    return _set_up(task, title, LONGEST_SECONDS)


def as_small(task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
    """Set up a task that ends within seconds; a wrong field of a form is told at once."""
    task.set_cpu_request("200m").set_memory_request("512Mi").set_memory_limit("1Gi")
    return _set_up(task, title, _SHORT_SECONDS)


def _set_up(task: dsl.PipelineTask, title: str, timeout_seconds: int) -> dsl.PipelineTask:
    task.set_display_name(title)
    # Records decide what is done; KFP's cache would compare parameters only.
    task.set_caching_options(False)
    kubernetes.set_timeout(task, timeout_seconds)
    kubernetes.set_security_context(
        task, run_as_user=USER_ID, run_as_group=USER_ID, run_as_non_root=True
    )
    kubernetes.use_secret_as_env(
        task,
        secret_name=environment.credentials_secret(),
        secret_key_to_env={key: key for key in environment.CREDENTIALS},
        optional=True,  # pods may have the rights of their node, or data on a volume
    )
    kubernetes.use_config_map_as_env(
        task,
        config_map_name=environment.SETTINGS_MAP,
        config_map_key_to_env={key: key for key in environment.SETTINGS},
        optional=True,
    )
    for name, path in environment.FIELDS.items():
        kubernetes.use_field_path_as_env(task, name, path)
    if secrets := environment.pull_secrets():
        kubernetes.set_image_pull_secrets(task, secrets)
    return task
