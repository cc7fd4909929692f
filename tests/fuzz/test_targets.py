"""Every seed and every earlier finding once, and some inputs made of them: `make fuzz` in short.

An input that broke something is kept in `findings/TARGET/` under a name that says what it was.
"""

import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import launcher, target

TARGETS = target.names()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings(name):
    module = target.load(name)
    seeds = target.all_seeds(name)
    assert seeds
    for seed in seeds:
        module.run(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_changed_seeds(name, data):
    module = target.load(name)
    seeds = target.all_seeds(name)
    target.prepare(seeds)
    seed = data.draw(st.sampled_from(seeds))
    number = data.draw(st.integers(0, 2**32 - 1))
    if getattr(module, "JSON", False):
        module.run(target.mutated_json(seed, 1 << 16, number, _mutated(number)))
    else:
        module.run(_mutated(number)(seed, 1 << 16))


def _mutated(number):
    """A change of bytes, as libFuzzer makes some."""
    draw = random.Random(number)

    def mutate(data, most):
        made = bytearray(data)
        for _ in range(draw.randrange(1, 8)):
            at = draw.randrange(len(made) + 1)
            match draw.randrange(4):
                case 0:
                    made[at : at + draw.randrange(1, 9)] = b""
                case 1:
                    made[at:at] = draw.randbytes(draw.randrange(1, 9))
                case 2:
                    made[at:at] = made[: draw.randrange(64)]
                case _:
                    made[at : at + 1] = draw.randbytes(1)
        return bytes(made[:most])

    return mutate


def test_launcher_seeds(tmp_path):
    """Without libFuzzer, which needs clang: a compiler with the sanitizers is enough."""
    program = launcher.build_plain(tmp_path)
    files = []
    for number, seed in enumerate(launcher.seeds()):
        files.append(tmp_path / f"{number}")
        files[-1].write_bytes(seed)
    files += sorted((target.FINDINGS / launcher.NAME).glob("*"))
    done = subprocess.run([program, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(files)} inputs" in done.stdout


HUGE = 1 << 20
KEYS = "".join(f'"k{number}":1,' for number in range(90_000))
RANGES = ",".join(
    f'[{{"subnet":"10.{number // 256}.{number % 256}.0/24"}}]' for number in range(20_000)
)
# Members of a configuration.
LARGE = {
    "long string": '"type":"' + "x" * HUGE + '"',
    "deep": '"prevResult":' + "[" * HUGE,
    "deep and whole": '"args":' + '{"a":' * 400 + "1" + "}" * 400,
    "many keys": KEYS + '"type":"x"',
    "one key again": '"NAME":"n",' * 90_000 + '"type":"x"',
    "long number": '"mtu":' + "9" * HUGE,
    "long fraction": '"mtu":0.' + "9" * HUGE,
    "many ranges": '"ipam":{"type":"host-local","ranges":[' + RANGES + "]}",
    "long name": '"name":"' + "n" * HUGE + '"',
    "long version": '"cniVersion":"' + "1." * (HUGE // 2) + '"',
    "no number": '"mtu":NaN',
    "half a pair": '"type":"\\ud800"',
    "not UTF-8": '"type":"\udcff"',
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_large_configurations(text):
    """A megabyte of one kind: larger than what a fuzzer makes."""
    config = target.load("config")
    for name in ("bridge", "host-local", "tuning"):
        for verb in ("ADD", "DEL"):
            document = f'{{"cniVersion":"1.1.0","name":"n",{text}}}'
            config.run(f"{name} {verb}\n{document}".encode(errors="surrogateescape"))
