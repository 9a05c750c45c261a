# SPDX-License-Identifier: Apache-2.0
"""Compile every pipeline into `pipelines/compiled/`; the files are committed and verified.

Two forms of each: what KFP's API and UI take, and the Pipeline and PipelineVersion resources of a
KFP that keeps pipelines in Kubernetes (`--pipelinesStoreKubernetes`).
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from pipelines.benchmark import benchmark
from pipelines.end_to_end import end_to_end
from pipelines.finetune import finetune
from pipelines.pretrain import pretrain
from pyfsb.schema import digest

FOLDER: Final = Path(__file__).parent / "compiled"
MANIFESTS: Final = "kubernetes"
"""Sub-folder of the resources."""
PIPELINES: Final[dict[str, BaseComponent]] = {
    "pretrain": pretrain,
    "finetune": finetune,
    "benchmark": benchmark,
    "end_to_end": end_to_end,
}
_DIGEST_CHARACTERS: Final = 12
_VERSION: Final = "VERSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """One compiled pipeline."""

    name: str
    """Its name in KFP."""
    title: str
    """Its name for people."""
    description: str
    """What it does, in a sentence."""
    version: str
    """Name of this version; follows from the content, images included."""
    text: str
    """The intermediate representation, as YAML."""
    manifests: str
    """Pipeline and PipelineVersion, as YAML."""


def compile_pipeline(name: str) -> Compiled:
    """Compile one pipeline; the images come from `pipelines.images`.

    Args:
        name: One of `PIPELINES`.
    """
    pipeline = PIPELINES[name]
    info = pipeline.pipeline_spec.pipeline_info
    options = compiler.compiler_utils.KubernetesManifestOptions(
        pipeline_name=info.name,
        pipeline_display_name=info.display_name,
        pipeline_version_name=_VERSION,
        pipeline_version_display_name=_VERSION,
        include_pipeline_manifest=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        plain, resources = Path(folder, "plain.yaml"), Path(folder, "resources.yaml")
        compiler.Compiler().compile(pipeline, str(plain))
        compiler.Compiler().compile(
            pipeline,
            str(resources),
            kubernetes_manifest_format=True,
            kubernetes_manifest_options=options,
        )
        text, manifests = _clean(plain), _clean(resources)
    content = digest(list(yaml.safe_load_all(text))).removeprefix("sha256:")
    version = f"{info.name}-{content[:_DIGEST_CHARACTERS]}"
    marked = rf"(?m)^(\s*(?:name|displayName): ){_VERSION}$"
    return Compiled(
        name=info.name,
        title=info.display_name,
        description=info.description,
        version=version,
        text=text,
        manifests=re.sub(marked, rf"\g<1>{version}", manifests),
    )


def compile_all() -> dict[str, str]:
    """Return the text of every file, by its path below the folder."""
    texts = {}
    for name in PIPELINES:
        compiled = compile_pipeline(name)
        texts[f"{name}.yaml"] = compiled.text
        texts[f"{MANIFESTS}/{name}.yaml"] = compiled.manifests
    return texts


def write_all(folder: Path) -> list[Path]:
    """Compile every pipeline into a folder; returns the files."""
    paths = []
    for name, text in compile_all().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def _clean(path: Path) -> str:
    """Return what the compiler wrote, without what is not content.

    Its comments break on a default of several lines, and the SDK's patch version would make the
    file change without any change of ours.
    """
    text = path.read_text(encoding="utf-8")
    start = re.search(r"(?m)^(?:components|apiVersion):", text)
    assert start, path
    return re.sub(r"(sdkVersion: kfp-\d+\.\d+)\.\d+", r"\1", text[start.start() :])
