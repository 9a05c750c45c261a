"""What every image promises, read from its Dockerfile; images/build makes them for real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

STAGES = ("data", "eval", "operator", "serving", "train")
ENTRIES = {
    "data": "pyfsb.data", "eval": "pyfsb.evaluation", "operator": "operators",
    "serving": "serving", "train": "pyfsb.training",
}  # fmt: skip
IMAGES = ROOT / "images"


def dockerfile(name: str) -> str:
    return (IMAGES / name / "Dockerfile").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (word, rest) of each instruction, continued lines joined, comments left out."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def stages(text: str) -> list[list[tuple[str, str]]]:
    """Return the instructions of each build stage, its FROM first."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions(text):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def values(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


@pytest.fixture(scope="module")
def layer() -> Iterator[ModuleType]:
    """images/layer.py, which is no part of a package; its worker processes know it by name."""
    spec = importlib.util.spec_from_file_location("layer_of_an_image", IMAGES / "layer.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_there_is_an_image_for_each_stage() -> None:
    assert {path.parent.name for path in IMAGES.glob("*/Dockerfile")} == {*STAGES, "base"}
    script = (IMAGES / "build").read_text()
    named = re.search(r'^STAGES="(.+)"$', script, re.M)
    assert named is not None
    assert sorted(named[1].split()) == sorted(STAGES)


@pytest.mark.parametrize("name", [*STAGES, "base"])
def test_a_dockerfile_is_short_and_of_many_stages(name: str) -> None:
    text = dockerfile(name)
    assert text.count("\n") <= 60
    assert len(stages(text)) >= 2


@pytest.mark.parametrize("name", STAGES)
def test_a_final_image_runs_as_nobody_from_the_shared_layers(name: str) -> None:
    final = stages(dockerfile(name))[-1]
    assert values(final, "USER")[-1] == "65532:65532"
    arguments = dict(value.split("=", 1) for value in values(instructions(dockerfile(name)), "ARG"))
    source = values(final, "FROM")[0]
    aliases = {
        rest.split()[-1]: rest.split()[0]
        for rest in values(instructions(dockerfile(name)), "FROM")
        if " AS " in rest
    }
    variable = aliases.get(source, source).strip("${}")
    shared = {"CORE_IMAGE": "base:core", "MODELS_IMAGE": "base:models", "TRAIN_IMAGE": "train"}
    assert arguments[variable] == f"fengshenbang/{shared[variable]}"


def test_the_bases_are_arguments_and_run_as_nobody() -> None:
    text = dockerfile("base")
    arguments = [value.partition("=")[0] for value in values(instructions(text), "ARG")]
    assert {"BASE_IMAGE", "BUILD_IMAGE", "TORCH_INDEX", "PIP_FIND_LINKS"} <= set(arguments)
    for stage in stages(text)[-2:]:
        assert values(stage, "USER")[-1] == "65532:65532"
    core = next(stage for stage in stages(text) if values(stage, "FROM")[0].endswith(" AS core"))
    assert values(core, "FROM") == ["${BASE_IMAGE} AS core"]
    labels = " ".join(values(core, "LABEL"))
    for label in ("title", "description", "licenses", "vendor", "source"):
        assert f"org.opencontainers.image.{label}=" in labels


@pytest.mark.parametrize("name", STAGES)
def test_an_image_says_what_it_is(name: str) -> None:
    labels = " ".join(values(stages(dockerfile(name))[-1], "LABEL"))
    assert f'image.title="fengshenbang-{name}"' in labels
    assert "image.description=" in labels
    assert "image.version=$TAG" in (IMAGES / "build").read_text()


@pytest.mark.parametrize("name", [*STAGES, "base"])
def test_no_final_stage_gets_a_compiler_or_pip(name: str) -> None:
    """Tools are mounted, never copied; only `tools` stages install with pip itself."""
    for stage in stages(dockerfile(name)):
        source = values(stage, "FROM")[0]
        if "${BUILD_IMAGE}" in source or source.startswith(("tools", "${TOOLS_IMAGE}")):
            continue
        commands = " ".join(values(stage, "RUN"))
        assert not re.search(r"apt-get|g\+\+|gcc|\bpip install|ensurepip", commands)
        assert "venv /opt/fsb" not in commands
        for copied in values(stage, "COPY"):
            taken = re.match(r"--from=(\S+) (\S+)", copied)
            assert taken is None or taken.groups() in {
                ("code", "/layer/"), ("deepspeed", "/wheels/"), ("lock", "/lock/"),
            }  # fmt: skip


@pytest.mark.parametrize("name", [*STAGES, "base"])
def test_a_step_with_a_mount_stands_behind_what_decides_its_result(name: str) -> None:
    """Builders look for a cached layer by the layers below it, not by what is mounted."""
    for stage in stages(dockerfile(name)):
        words = [word for word, rest in stage if word == "COPY" or "--mount" in rest]
        source = values(stage, "FROM")[0]
        is_on_ours = re.match(r"\$\{(CORE|MODELS|TRAIN)_IMAGE\}|core ", source)
        assert words[:1] in ([], ["COPY"]) or is_on_ours


@pytest.mark.parametrize("name", [*STAGES, "base"])
def test_no_stage_stands_on_one_that_only_names_an_image(name: str) -> None:
    """Buildah commits such a stage anew at every build, and nothing on it is ever cached."""
    parts = stages(dockerfile(name))
    aliases = {values(part, "FROM")[0].split()[-1] for part in parts if len(part) == 1}
    assert not aliases & {values(part, "FROM")[0].split()[0] for part in parts}


@pytest.mark.parametrize("name", STAGES)
def test_the_entry_point_is_a_module_that_is_in_the_image(name: str) -> None:
    parts = stages(dockerfile(name))
    module = json.loads(values(parts[-1], "ENTRYPOINT")[0])
    assert module == ["python3", "-m", ENTRIES[name]]
    assert importlib.util.find_spec(f"{ENTRIES[name]}.__main__") is not None
    rooms = ENTRIES[name].partition(".")[0]
    code = parts if name != "eval" else stages(dockerfile("train"))  # eval is train with more
    copied = [rest for stage in code for rest in values(stage, "COPY")]
    assert f"{rooms} /src/{rooms}" in copied
    assert "pyfsb /src/pyfsb" in copied


@pytest.mark.parametrize("name", STAGES)
def test_an_image_has_its_bill_of_materials(name: str) -> None:
    runs = values(stages(dockerfile(name))[-1], "RUN")
    assert runs[-1].endswith("layer.py --bill")


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("data", ["data", "pipelines"]), ("train", ["train"]), ("eval", ["eval"]),
        ("serving", ["serving"]), ("operator", ["operator"]), ("base", ["models"]),
    ],
)  # fmt: skip
def test_an_image_has_the_extras_of_its_stage_alone(name: str, extras: list[str]) -> None:
    assert re.findall(r"--extra (\S+)", dockerfile(name)) == extras


def test_the_context_is_what_the_dockerfiles_copy() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*"
    copied: set[str] = set()
    for name in (*STAGES, "base"):
        for rest in values(instructions(dockerfile(name)), "COPY"):
            if not rest.startswith("--from"):
                copied |= set(rest.split()[:-1])
    assert copied == allowed


def test_own_extras_are_followed(layer: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in project["optional-dependencies"]:
        found = layer.requirements(project, [extra])
        assert set(project["dependencies"]) <= set(found)
        assert not [requirement for requirement in found if requirement.startswith("fengshenbang")]
    everything = layer.requirements(project, ["eval"])
    for extra in ("data", "models", "train"):
        assert set(layer.requirements(project, [extra])) <= set(everything)
    serving = layer.requirements(project, ["serving"])
    assert not [requirement for requirement in serving if requirement.startswith("deepspeed")]
    with pytest.raises(KeyError):
        layer.requirements(project, ["nothing"])


def test_what_images_install_is_pinned(layer: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    extras = [
        extra
        for name in (*STAGES, "base")
        for extra in re.findall(r"--extra (\S+)", dockerfile(name))
    ]
    packages = [
        pkg for name in STAGES for pkg in re.findall(r"--package ([\w-]+)$", dockerfile(name), re.M)
    ]
    for requirement in [*layer.requirements(project, extras), *packages]:
        name = re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, requirement


def test_the_lock_says_what_pyproject_requires_and_nothing_else(
    layer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("constraints.txt", "images/layer.py"):
        shutil.copy(ROOT / name, source)
    monkeypatch.setattr(layer, "SOURCE", source)

    def lock(text: str, name: str) -> bytes:
        (source / "pyproject.toml").write_text(text, encoding="utf-8")
        layer.write_lock(layer.read_project(source), tmp_path / name)
        return (tmp_path / name / "pyproject.toml").read_bytes()

    first = lock(text, "first")
    project, locked = layer.read_project(source), layer.read_project(tmp_path / "first")
    for field in locked:
        assert locked[field] == project[field]
    assert layer.requirements(locked, ["all"]) == layer.requirements(project, ["all"])
    assert lock(text.replace("line-length = 100", "line-length = 99"), "second") == first
    assert lock(text.replace("scipy>=1.17", "scipy>=1.18"), "third") != first
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "pyproject.toml", "constraints.txt", "layer.py",
    }  # fmt: skip
    assert {path.stat().st_mtime for path in (tmp_path / "first").iterdir()} == {0}


def test_byte_code_is_bound_to_no_time(layer: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "site-packages/package"
    (package / "tests").mkdir(parents=True)
    (package / "tests/test_x.py").write_text("x = 1\n")
    licence = tmp_path / "site-packages/package.dist-info/licenses/tests/LICENSE.txt"
    licence.parent.mkdir(parents=True)
    licence.write_text("free\n")
    (package / "module.py").write_text("x = 1\n")
    (package / "broken.py").write_text("x = \n")
    layer.finish(0, tmp_path)
    assert not (package / "tests").exists()
    assert licence.exists()
    compiled = list(package.rglob("*.pyc"))
    assert [path.name.partition(".")[0] for path in compiled] == ["module"]
    before = compiled[0].read_bytes()
    assert before[4] & 0b11 == 0b01, "a hash that is not checked"
    compiled[0].unlink()
    os.utime(package / "module.py", (1, 1))
    layer.finish(0, tmp_path)
    assert compiled[0].read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (["trian"], {}, "no stage trian; expected all or one of: operator data train eval serving"),
        (["train"], {"VARIANT": "tpu"}, "VARIANT=tpu; expected cpu or gpu"),
        (["train"], {"BUILDER": "kaniko"}, "BUILDER=kaniko; expected docker or buildah"),
        (["train"], {"ARCHIVE_FORMAT": "zip"}, "ARCHIVE_FORMAT=zip; expected oci-archive or"),
    ],
)
def test_the_script_says_what_it_takes(
    arguments: list[str], environment: dict[str, str], text: str
) -> None:
    done = subprocess.run(
        [str(IMAGES / "build"), *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert text in done.stderr


def calls(tmp_path: Path, *stages: str, **environment: str) -> list[list[str]]:
    """Run images/build with a builder that only notes what it is asked."""
    log = tmp_path / "log"
    program = tmp_path / "bin/docker"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        "#!/usr/bin/env bash\n"
        f"line=$(printf '%s\\x1f' \"$@\"); printf '%s\\n' \"$line\" >> {log}\n"
        '[ "$1" != cp ] || echo \'{}\' > "${@: -1}"\n'
        '[ "$1" != inspect ] || echo sha256:1\n'
        '[ "$1" != save ] || echo archive > "$3"\n'
    )
    program.chmod(0o755)
    log.write_text("")
    kept = {
        name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "TAG"}
    }
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {
        **kept, "BUILDER": "docker", "PREFIX": "p", "TAG": "t", "PATH": path,
        "BILLS": str(tmp_path / "bills"), **environment,
    }  # fmt: skip
    subprocess.run([str(IMAGES / "build"), *stages], check=True, env=environment, timeout=60)
    return [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]


def tags(found: list[list[str]]) -> list[str]:
    return [call[call.index("--tag") + 1] for call in found if call[0] == "build"]


def test_shared_layers_are_built_once_and_first(tmp_path: Path) -> None:
    found = tags(calls(tmp_path, "all"))
    assert len(found) == len(set(found)) == 9
    assert found.index("p/base:models-t") < found.index("p/train:t") < found.index("p/eval:t")
    assert set(tags(calls(tmp_path, "operator"))) == {
        "p/base:tools-t", "p/base:core-t", "p/operator:t",
    }  # fmt: skip


def test_the_variant_chooses_where_torch_comes_from(tmp_path: Path) -> None:
    def index(**environment: str) -> list[str]:
        found = calls(tmp_path, "serving", **environment)
        return sorted({word for call in found for word in call if word.startswith("TORCH_INDEX=")})

    assert index(VARIANT="gpu") == []
    assert index(VARIANT="cpu", TORCH_INDEX="x") == ["TORCH_INDEX=x"]
    assert len(index(VARIANT="cpu")) == 1
    assert index(VARIANT="cpu", PIP_FIND_LINKS="y") == []


def test_an_archive_is_written_again_only_for_another_image(tmp_path: Path) -> None:
    def saved() -> int:
        found = calls(tmp_path, "operator", ARCHIVE=str(tmp_path / "archives"))
        return len([call for call in found if call[0] == "save"])

    assert saved() == 1
    assert saved() == 0
    note = tmp_path / "archives/operator.tar.image"
    note.write_text("oci-archive p/operator:t sha256:0\n")
    assert saved() == 1
    assert "sha256:1" in note.read_text()
    (tmp_path / "archives/operator.tar").unlink()
    assert saved() == 1
