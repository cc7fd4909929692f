"""A host to try things on: fresh network and mount namespaces, with state folders of their own.

Nothing of the machine's network or files changes, and the kernel takes all of it down when the last
process in it ends.
"""

from __future__ import annotations

import os
import subprocess

from cni_py.spec.errors import CniError, Code

from .errors import KernelError
from .netns import unshare

# Folders that plugins and runtimes write to: the host has its own, empty.
STATE_FOLDERS = ("/var/lib/cni", "/etc/cni", "/opt/cni")

# What a shell does to make a host of new namespaces whose mounts are private.
SET_UP = f"""
set -e
mount -n -t tmpfs -o mode=755 none /run
layers=0
for folder in {" ".join(STATE_FOLDERS)}; do
  if [ -d $folder ]; then
    mount -n -t tmpfs -o mode=755 none $folder
  else
    # The machine has no such folder and gets none: its parent becomes a layer of this host's own.
    parent=${{folder%/*}} layers=$((layers + 1))
    layer=/run/layers/$layers
    mkdir -p $layer/upper $layer/work
    options=lowerdir=$parent,upperdir=$layer/upper,workdir=$layer/work
    mount -n -t overlay -o $options none $parent
    mkdir $folder
  fi
done
mkdir -p /run/netns /run/lock /etc/cni/net.d /opt/cni/bin /var/lib/cni/networks
mount -n -t sysfs none /sys
ip link set lo up
"""


def become_throwaway_host() -> None:
    """Move this process, for good, to a host of its own. Raises CniError 999 with what refused."""
    msg = "cannot make a host to try things on"
    try:
        unshare(mounts=True)
    except KernelError as error:
        text = f"{msg}: {os.strerror(error.errno)}"
        raise CniError(Code.INTERNAL, text, "unshare(2)") from error
    commands = f"mount --make-rprivate /\n{SET_UP}"
    done = subprocess.run(
        ["/bin/sh", "-c", commands], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise CniError(Code.INTERNAL, msg, done.stderr.decode(errors="replace").strip())
