# SPDX-License-Identifier: Apache-2.0
"""The process that opens one pickled file of weights and writes its tensors as safetensors.

Started by `pyfsb.models.importing`, a process a file. It is the only code of the platform that
opens a pickle: weights only, without network, within limits of memory and time, and with every
door of the interpreter to other programs shut. Reads its job as JSON from stdin, answers on stdout.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_SHUT: Final = (
    "socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.startfile", "pty.spawn",
    "subprocess.", "ftplib.", "http.client.", "urllib.", "smtplib.", "pickle.find_class",
)  # fmt: skip
"""Events of the interpreter that are refused once everything needed is imported."""
_WRAPPERS: Final = ("state_dict", "module", "model", "model_state_dict")


def leave_network() -> str:
    """Give this process a network of its own with nothing in it, if the kernel lets it.

    Returns:
        `namespace`, or `sockets` where only the interpreter's sockets can be refused.
    """
    if not sys.platform.startswith("linux"):
        return "sockets"
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            return "namespace"
    return "sockets"


def shut_doors() -> None:
    """Refuse sockets, other programs and the interpreter's own unpickler from here on."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_SHUT):
            raise PermissionError(f"the file asked for {event}, which is refused")

    sys.addaudithook(refuse)


def limit(*, memory_bytes: int, file_bytes: int, cpu_seconds: int) -> None:
    """Set limits of this process; memory is counted from what it has mapped so far."""
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check_archive(path: Path, max_bytes: int) -> bool:
    """Tell whether a file is a zip archive, as torch writes since 1.6.

    Raises:
        ValueError: Its members unpack to more than the limit.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > max_bytes:
        raise ValueError(f"its members unpack to {total} bytes, more than the limit {max_bytes}")
    return True


def unwrap(value: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of what a file holds, and the names of everything else in it.

    Raises:
        ValueError: There is no tensor in it.
    """
    import torch

    if isinstance(value, Mapping):
        for name in _WRAPPERS:
            if isinstance(value.get(name), Mapping):
                value = value[name]
                break
    if not isinstance(value, Mapping):
        raise ValueError(f"it holds a {type(value).__name__}; expected tensors by name")
    tensors = {str(name): item for name, item in value.items() if torch.is_tensor(item)}
    if not tensors:
        raise ValueError("it holds no tensor")
    return tensors, sorted(str(name) for name in value if str(name) not in tensors)


def convert(source: Path, target: Path, *, max_bytes: int) -> dict[str, Any]:
    """Write the tensors of a pickled file as safetensors; returns what else was in it."""
    import torch
    from safetensors.torch import save_file

    is_archive = check_archive(source, max_bytes)
    value = torch.load(source, map_location="cpu", weights_only=True, mmap=is_archive)
    tensors, others = unwrap(value)
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.contiguous()
        tensors[name] = whole.clone() if place in seen else whole
        seen.add(place)
    save_file(tensors, str(target), metadata={"format": "pt"})
    return {"num_tensors": len(tensors), "others": others[:100]}


def main() -> int:
    """Do the job on stdin."""
    job = json.loads(sys.stdin.read())
    network = leave_network()  # before torch starts threads: a namespace is for a single one
    import torch

    torch.set_num_threads(1)
    answer: dict[str, Any] = {"network": network}
    try:
        limit(
            memory_bytes=job["memory_bytes"],
            file_bytes=2 * job["max_bytes"],
            cpu_seconds=job["cpu_seconds"],
        )
        shut_doors()
        answer |= convert(Path(job["source"]), Path(job["target"]), max_bytes=job["max_bytes"])
    except MemoryError:
        answer["error"] = f"more than {job['memory_bytes']} bytes of memory are needed"
    except Exception as exc:  # a process edge: whatever is in the file, the parent must hear it
        answer["error"] = f"{type(exc).__name__}: {exc}"
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(3 if "error" in answer else 0)


if __name__ == "__main__":
    main()
