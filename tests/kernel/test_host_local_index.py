"""host-local's index: namespaces, crashes, damage, reboots, many at once, cost (W-HL1 to W-HL4)."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from fixtures.configs import ipam
from fixtures.host import BIN, Container, refusal

SMALL = ipam(ranges=[[{"subnet": "10.0.0.0/29"}]])
NETWORKS = "/var/lib/cni/networks"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def folder(host, path=f"{NETWORKS}/net1"):
    """A folder of the host, as this process sees it."""
    return Path(f"/proc/{host.holder.pid}/root{path}")


def index(host):
    return folder(host, f"{NETWORKS}/.cni-py/net1")


def box(host, name):
    """A container whose namespace does not matter."""
    return Container(host, name, f"/run/netns/{name}")


def add(host, name, config=SMALL, ifname="eth0"):
    (given,) = host.add("host-local", config, box(host, name), ifname)["ips"]
    return given["address"].partition("/")[0]


def owner_file(host, name):
    """The index's entry of a container's eth0."""
    # In quotes: a boot id may hold the letters.
    entries = [one for one in (index(host) / "owners").iterdir() if f'"{name}"' in one.read_text()]
    assert len(entries) == 1
    return entries[0]


def until(condition, seconds=20):
    """Poll, with a deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the deadline has passed"
        time.sleep(0.005)


def reboot(host, boot_id):
    """Another boot id, as this host sees it."""
    folder(host, "/run/boot_id").write_text(f"{boot_id}\n")
    host.run("mount", "--bind", "/run/boot_id", BOOT_ID)


# A second ADD.


def test_a_second_add_while_the_namespace_lives(host):
    """[W-G20] Is refused, with the namespace that holds the address."""
    first = host.container("c1")
    host.add("host-local", SMALL, first)
    error = refusal(host.call("host-local", "ADD", SMALL, first))
    assert error["code"] == 999
    assert error["msg"].startswith("10.0.0.2 has been allocated to id-c1, duplicate")
    assert error["details"].startswith("interface eth0 in /run/netns/c1:")
    other_ranges = ipam(ranges=[[{"subnet": "10.1.0.0/29"}]])
    host.add("host-local", other_ranges, first)
    assert list(host.allocated("net1")) == ["10.0.0.2", "10.1.0.2"]
    host.delete("host-local", other_ranges, first)
    assert host.allocated("net1") == {}


@pytest.mark.parametrize("path", ["c1", "c2"])
def test_a_second_add_after_the_namespace_is_gone(host, path):
    """[W-G20] Gets the same address, also when a new namespace has the path of the old one."""
    first = host.container("c1")
    host.add("host-local", SMALL, first)
    first.delete_netns()
    second = host.container(path, first.id)
    (given,) = host.add("host-local", SMALL, second)["ips"]
    assert given["address"] == "10.0.0.2/29"
    assert host.allocated("net1") == {"10.0.0.2": "id-c1\r\neth0"}
    error = refusal(host.call("host-local", "ADD", SMALL, second))
    assert error["details"].startswith(f"interface eth0 in /run/netns/{path}:")


# Crashes.


def test_an_empty_file_is_reclaimed(host):
    """[W-HL4] Its writer died before it wrote, or a loss of power took what it wrote."""
    assert add(host, "a") == "10.0.0.2"
    (folder(host) / "10.0.0.3").touch()
    (folder(host) / "10.0.0.4").write_bytes(b"\n")
    assert [add(host, name) for name in "bcd"] == ["10.0.0.3", "10.0.0.4", "10.0.0.5"]
    (folder(host) / "10.0.0.5").write_bytes(b"")
    requested = SMALL | {"runtimeConfig": {"ips": ["10.0.0.5"]}}
    assert add(host, "e", requested) == "10.0.0.5"
    assert host.allocated("net1")["10.0.0.5"] == "e\r\neth0"
    (folder(host) / "10.0.0.5").write_bytes(b"")
    reboot(host, "later")
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == {}


ALL_CHANGES = "trace=link,linkat,unlink,rename,utimensat,pwrite64,write,openat"
CHANGES = re.compile(
    r"^(?P<call>linkat|link|unlink|rename|utimensat|pwrite64|write|openat)\((?P<arguments>.*)"
)


def traced(host, verb, name, *options, config=SMALL):
    """Run a verb under strace; its exit status and trace."""
    environ = {"CNI_COMMAND": verb, "CNI_CONTAINERID": name, "CNI_IFNAME": "eth0"}
    environ |= {"CNI_NETNS": f"/run/netns/{name}", "CNI_PATH": str(BIN), "CNI_PY_SOCKET": ""}
    command = ("strace", "-y", "-o", "/run/trace", *options, str(BIN / "host-local"))
    done = host.run(*command, stdin=json.dumps(config), env=environ, check=False)
    return done.status, folder(host, "/run/trace").read_text().splitlines()


def changes(trace):
    """Each system call that changes the network's files, as (name, which one of that name)."""
    counts, found = {}, []
    for line in trace:
        match = CHANGES.match(line)
        if match is None:
            continue
        call, arguments = match["call"], match["arguments"]
        counts[call] = counts.get(call, 0) + 1
        if NETWORKS in arguments and (call != "openat" or "O_CREAT" in arguments):
            found.append((call, counts[call]))
    return found


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_killed_at_any_change(host, verb):
    """[W-HL4] [W-HL2] Whatever was done by then, the DEL that follows frees all of it."""
    assert add(host, "other") == "10.0.0.2"
    status, trace = traced(host, "ADD", "victim", "-e", ALL_CHANGES)
    if verb == "DEL":
        status, trace = traced(host, "DEL", "victim", "-e", ALL_CHANGES)
    assert status == 0
    points = changes(trace)
    assert len(points) >= 7
    host.call("host-local", "DEL", SMALL, box(host, "victim"))
    for call, number in points:
        if verb == "DEL":
            add(host, "victim")
        status, _ = traced(host, verb, "victim", "-e", f"inject={call}:signal=KILL:when={number}")
        assert status in (-9, 137), (call, number)
        host.delete("host-local", SMALL, box(host, "victim"))
        assert host.allocated("net1") == {"10.0.0.2": "other\r\neth0"}, (call, number)
        entries = list((index(host) / "owners").iterdir())
        assert entries == [owner_file(host, "other")], (call, number)
    assert not (index(host) / "new").exists()
    # And nothing is taken for used: all the others are given.
    assert {add(host, name) for name in "abcd"} == {f"10.0.0.{last}" for last in (3, 4, 5, 6)}


@pytest.mark.parametrize("what", ["error=ENOSPC", "signal=TERM"])
def test_disturbed_at_any_change(host, what):
    """[W-HL3] [W-HL4] An ADD that fails has given all back; a DEL does not fail for the index."""
    other = {"10.0.0.2": "other\r\neth0"}
    assert add(host, "other") == "10.0.0.2"
    failed = 0
    for call, number in changes(traced(host, "ADD", "victim", "-e", ALL_CHANGES)[1]):
        host.delete("host-local", SMALL, box(host, "victim"))
        assert host.allocated("net1") == other, (call, number)
        inject = f"inject={call}:{what}:when={number}"
        status, _ = traced(host, "ADD", "victim", "-e", inject)
        if status != 0:
            failed += 1
            assert host.allocated("net1") == other, (call, number)
    assert failed >= 6
    host.delete("host-local", SMALL, box(host, "victim"))
    add(host, "victim")
    status, _ = traced(host, "DEL", "victim", "-e", "inject=rename,pwrite64,utimensat:error=ENOSPC")
    assert (status, host.allocated("net1")) == (0, other)
    assert {add(host, name) for name in "abcd"} == {f"10.0.0.{last}" for last in (3, 4, 5, 6)}


# Damage.


def garbage(path):
    path.write_bytes(b"\xff\x00{[")


def used_map(host):
    (only,) = (index(host) / "used").iterdir()
    return only


def unfinished(host):
    """A crash before rename(2): the folder's time is then not the one in the state."""
    entry = owner_file(host, "c1")
    entry.rename(f"{entry}.new")
    os.utime(folder(host))


DAMAGE = {
    "all of it missing": lambda host: shutil.rmtree(index(host).parent),
    "no state": lambda host: (index(host) / "state").unlink(),
    "state garbage": lambda host: garbage(index(host) / "state"),
    "state truncated": lambda host: (index(host) / "state").write_text('{"mtime":'),
    "state of another time": lambda host: (index(host) / "state").write_text('{"mtime":1}'),
    "entry empty": lambda host: owner_file(host, "c1").write_text(""),
    "entry garbage": lambda host: garbage(owner_file(host, "c1")),
    "entry truncated": lambda host: os.truncate(owner_file(host, "c1"), 20),
    "entry of another owner": lambda host: shutil.copy(
        owner_file(host, "c2"), owner_file(host, "c1")
    ),
    "entry without address": lambda host: owner_file(host, "c1").write_text(
        owner_file(host, "c1").read_text().replace("10.0.0.2", "../lock")
    ),
    "entry unfinished": unfinished,
    "bits all set": lambda host: used_map(host).write_bytes(b"\xff"),
    "bits all clear": lambda host: used_map(host).write_bytes(b""),
    "bits unfinished": lambda host: garbage(used_map(host).with_suffix(".new")),
    "bits of no range": lambda host: garbage(used_map(host).with_name("x-y-4")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index(host, damage):
    """[W-HL2] Is made anew from the files: nothing leaks, nothing is given twice."""
    assert [add(host, name) for name in ("c1", "c2", "c3")] == [f"10.0.0.{n}" for n in (2, 3, 4)]
    DAMAGE[damage](host)
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert add(host, "c4") == "10.0.0.5"
    host.delete("host-local", SMALL, box(host, "c1"))
    listed = {"10.0.0.3": "c2\r\neth0", "10.0.0.4": "c3\r\neth0", "10.0.0.5": "c4\r\neth0"}
    assert host.allocated("net1") == listed
    assert {add(host, "c5"), add(host, "c6")} == {"10.0.0.6", "10.0.0.2"}
    valid = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    assert host.call("host-local", "GC", SMALL | valid).status == 0
    assert host.allocated("net1") == {"10.0.0.3": "c2\r\neth0"}


def test_an_address_of_another_container_is_never_released(host):
    """[W-HL2] The file decides, whatever the index says."""
    assert [add(host, name) for name in ("c1", "c2")] == ["10.0.0.2", "10.0.0.3"]
    entry = owner_file(host, "c1")
    entry.write_text(entry.read_text().replace("10.0.0.2", "10.0.0.3"))
    host.delete("host-local", SMALL, box(host, "c1"))
    assert host.allocated("net1")["10.0.0.3"] == "c2\r\neth0"
    (folder(host) / "10.0.0.2").unlink()


def test_a_full_disk(host):
    """[W-HL3] [W-HL4] An ADD leaves nothing; a DEL works, and what it freed is given again."""
    host.run("mount", "-t", "tmpfs", "-o", "size=128k", "none", NETWORKS)
    assert add(host, "a") == "10.0.0.2"
    host.run("dd", "if=/dev/zero", f"of={NETWORKS}/fill", "bs=4k", check=False)
    error = refusal(host.call("host-local", "ADD", SMALL, box(host, "b")))
    assert error["code"] == 5
    assert "No space left on device" in error["msg"]
    assert host.allocated("net1") == {"10.0.0.2": "a\r\neth0"}
    host.delete("host-local", SMALL, box(host, "a"))
    assert host.allocated("net1") == {}
    (folder(host, NETWORKS) / "fill").unlink()
    assert {add(host, name) for name in "bcdef"} == {f"10.0.0.{last}" for last in range(2, 7)}


def test_without_nameless_files(host):
    """[W-HL4] Where no file can be without a name, one left by a crash is not written into."""
    add(host, "a")
    _, lines = traced(host, "ADD", "b")
    opened = [line for line in lines if line.startswith("openat(")]
    numbers = [number for number, line in enumerate(opened, 1) if "O_TMPFILE" in line]
    (index(host) / "new").hardlink_to(folder(host) / "10.0.0.2")
    for number in numbers:
        host.call("host-local", "DEL", SMALL, box(host, "b"))
        inject = f"inject=openat:error=EOPNOTSUPP:when={number}"
        status, _ = traced(host, "ADD", "b", "-e", inject)
        assert status == 0
    assert len(numbers) > 1
    assert host.allocated("net1")["10.0.0.2"] == "a\r\neth0"
    assert sorted(host.allocated("net1").values()) == ["a\r\neth0", "b\r\neth0"]
    assert not (index(host) / "new").exists()
    host.delete("host-local", SMALL, box(host, "b"))


# Reboots.


def test_after_a_reboot(host):
    """[W-HL1] What was allocated before is reclaimed; what the reference took since then stays."""
    reference = replace(host, path="/usr/lib/cni")
    for name in ("c1", "c2", "c3"):
        add(host, name)
    reboot(host, "later")
    older = SMALL | {"cniVersion": "1.0.0"}
    reference.delete("host-local", older, box(host, "c2"))
    address = {"CNI_ARGS": "IP=10.0.0.3"}
    reference.add("host-local", older, box(host, "new"), env=address)
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == {"10.0.0.3": "new\r\neth0"}
    # And those of this boot stay, also those of an owner that was there before.
    assert add(host, "c1") == "10.0.0.4"
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert list(host.allocated("net1")) == ["10.0.0.3", "10.0.0.4"]


def test_after_a_loss_of_power(host):
    """[W-HL1] An entry that never reached the disk: its address is kept, and can be released."""
    for name in ("c1", "c2"):
        add(host, name)
    owner_file(host, "c1").unlink()
    reboot(host, "later")
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == {"10.0.0.2": "c1\r\neth0"}
    host.delete("host-local", SMALL, box(host, "c1"))
    assert host.allocated("net1") == {}


def age(path):
    """As if the file had been written long before this boot: its ctime cannot be set."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def put(host, address, owner, *, old=False):
    """A file as the reference writes it, whose index knows nothing of it."""
    path = folder(host) / address
    path.write_bytes(f"{owner}\r\neth0".encode())
    if old:
        age(path)


@pytest.mark.parametrize("verb", ["ADD", "STATUS", "DEL", "GC"])
def test_the_references_files_of_an_earlier_boot(host, verb):
    """[W-HL1] The index knows nothing of them: their time says that nobody can have them."""
    add(host, "c1")
    put(host, "10.0.0.3", "old", old=True)
    put(host, "10.0.0.4", "new")
    # One container name in both boots, as podman and tests have them.
    put(host, "10.0.0.5", "new", old=True)
    reboot(host, "later")
    put(host, "10.0.0.6", "newest")
    valid = [{"containerID": name, "ifname": "eth0"} for name in ("new", "newest")]
    config = SMALL | ({"cni.dev/valid-attachments": valid} if verb == "GC" else {})
    called = box(host, "victim") if verb in ("ADD", "DEL") else None
    assert host.call("host-local", verb, config, called).status == 0
    host.delete("host-local", SMALL, box(host, "victim"))
    assert host.allocated("net1") == {"10.0.0.4": "new\r\neth0", "10.0.0.6": "newest\r\neth0"}
    for name in ("new", "newest"):
        host.delete("host-local", SMALL, box(host, name))
    assert host.allocated("net1") == {}


def test_a_dry_run_after_a_reboot(host):
    """It says what is of an earlier boot and changes nothing; the next call frees it."""
    add(host, "c1")
    put(host, "10.0.0.3", "old", old=True)
    put(host, "10.0.0.4", "new")
    put(host, "10.0.0.5", "new", old=True)
    reboot(host, "later")
    text = json.dumps(SMALL | {"type": "host-local"})
    done = host.run(str(BIN / "cni-py"), "gc", "--dry-run", "-", stdin=text)
    assert "10.0.0.3 of old: it is of an earlier boot" in done.stdout
    assert list(host.allocated("net1")) == [f"10.0.0.{last}" for last in (2, 3, 4, 5)]
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == {"10.0.0.4": "new\r\neth0"}
    host.delete("host-local", SMALL, box(host, "new"))


@pytest.mark.parametrize("is_old", [False, True])
def test_a_file_that_differs_from_its_entry_of_an_earlier_boot(host, is_old):
    """[W-HL1] It was written since, and lives, unless its time says that it was only copied."""
    assert add(host, "c1") == "10.0.0.2"
    path = folder(host) / "10.0.0.2"
    reboot(host, "later")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    if is_old:
        age(path)
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == ({} if is_old else {"10.0.0.2": "c1\r\neth0"})
    host.delete("host-local", SMALL, box(host, "c1"))


def test_an_old_time_frees_nothing_that_the_index_knows_of_this_boot(host):
    """[W-HL1] The clock may have been wrong when it was written."""
    assert add(host, "c1") == "10.0.0.2"
    age(folder(host) / "10.0.0.2")
    entry = owner_file(host, "c1")
    raw = json.loads(entry.read_text())
    raw["addresses"]["10.0.0.2"][1] = 1_000_000_000 * 10**9
    entry.write_text(json.dumps(raw))
    os.utime(folder(host))
    assert host.call("host-local", "STATUS", SMALL).status == 0
    assert host.allocated("net1") == {"10.0.0.2": "c1\r\neth0"}
    host.delete("host-local", SMALL, box(host, "c1"))


# Many at once, and many there.


def holding(host):
    """A process that holds the network's lock until its standard input closes."""
    script = "echo held; read answer"
    command = [*host.prefix, "flock", f"{NETWORKS}/net1/lock", "-c", script]
    process = Popen(command, stdin=PIPE, stdout=PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_lock_is_waited_for(host):
    """[W-HL3] Another process holds it for a while."""
    assert add(host, "a") == "10.0.0.2"
    inode = (folder(host) / "lock").stat().st_ino
    with holding(host) as holder, ThreadPoolExecutor() as pool:
        waiting = pool.submit(add, host, "b")
        until(lambda: re.search(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text()))
        assert not waiting.done()
        assert list(host.allocated("net1")) == ["10.0.0.2"]
        holder.stdin.close()
        assert waiting.result() == "10.0.0.3"


@pytest.mark.slow
def test_the_lock_is_not_waited_for_for_ever(host):
    """[W-HL3] [W-G18] After 30 s code 11 says who holds it."""
    add(host, "a")
    with holding(host) as holder:
        start = time.monotonic()
        error = refusal(host.call("host-local", "ADD", SMALL, box(host, "b")))
        assert 29 < time.monotonic() - start < 60
        holder.stdin.close()
    assert error["code"] == 11
    assert error["msg"] == f"the lock {NETWORKS}/net1/lock was not free within 30 s"
    assert error["details"] == f"held by process {holder.pid} (flock)"


def test_the_cost_does_not_grow(host):
    """[W-HL2] ADD, CHECK and DEL open as many files among 5,000 allocations as among 10."""
    large = ipam(subnet="10.8.0.0/16")

    def calls(verb):
        status, trace = traced(host, verb, "c1", "-e", "trace=%file,getdents64", config=large)
        assert status == 0
        return trace

    def reads_the_folder(trace):
        return any("getdents64" in line and f"{NETWORKS}/net1>" in line for line in trace)

    def allocate(number):
        for one in range(2, number + 2):
            name = f"10.8.{one // 256}.{one % 256}"
            (folder(host) / name).write_bytes(f"many{one}\r\neth0".encode())

    folder(host).mkdir()
    allocate(10)
    # The call that finds the folder changed reads all of it: here it can be seen.
    assert reads_the_folder(calls("STATUS"))
    # The first ones make the folder of the attachments' locks, and the last reserved address.
    for verb in ("ADD", "DEL"):
        calls(verb)
    few = {verb: calls(verb) for verb in ("ADD", "CHECK", "DEL")}
    allocate(5000)
    assert host.call("host-local", "STATUS", large).status == 0
    for verb, expected in few.items():
        trace = calls(verb)
        assert not reads_the_folder(trace)
        assert len(trace) == len(expected)
    assert not any(map(reads_the_folder, few.values()))
    shutil.rmtree(folder(host))
    shutil.rmtree(index(host))
