"""containerd's configuration in a test's host, in the form that its version wants."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMON = """\
version = {form}
root = {root}
state = {state}
# Not needed, and some of them probe for kernel modules or folders of the machine.
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.v1.cgroups",
  "io.containerd.monitor.task.v1.cgroups",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = {address}
"""

# For containerd 1.x.
_VERSION_2 = """\
[plugins."io.containerd.grpc.v1.cri"]
# A pod's score is below ours, and to lower it takes CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
disable_apparmor = true
disable_cgroup = true
sandbox_image = {image}
# 127.0.0.1 cannot be bound while the host's lo is down.
stream_server_address = "0.0.0.0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = {snapshotter}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = {runtime}
"""

# For containerd 2.x: the CRI has become three plugins.
_VERSION_3 = """\
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
disable_cgroup = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
snapshotter = {snapshotter}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {runtime}
[plugins."io.containerd.cri.v1.images"]
snapshotter = {snapshotter}
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {image}
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "0.0.0.0"
# Where an imported image is unpacked.
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = {snapshotter}
"""


def text(version: tuple[int, int], values: Mapping[str, object]) -> str:
    """The file for containerd of that version. `values` are what the braces name."""
    form, own = (2, _VERSION_2) if version < (2, 0) else (3, _VERSION_3)
    # A JSON string is a TOML basic string as well.
    quoted = {name: json.dumps(str(value)) for name, value in values.items()}
    return (_COMMON + own).format_map({**quoted, "form": form})
