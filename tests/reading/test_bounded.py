"""Functions that run in a process of their own: whatever they do, this one goes on."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plume_embed.reading import bounded
from plume_embed.reading.bounded import LimitError, ProcessLimits, iterate_limited, run_limited

LIMITS = ProcessLimits(seconds=1, memory=2**28)


def spin() -> None:
    while True:
        pass


def take(num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def crash() -> None:
    os.kill(os.getpid(), 11)


def die_of(number: int) -> None:
    os.kill(os.getpid(), number)


def lose_its_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(1)


def wait_for_ever() -> None:
    time.sleep(1000)


def lose_its_parent_and_wait() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    wait_for_ever()


def refuse() -> None:
    raise KeyError("the reason")


def write(path: str) -> None:
    Path(path).write_text("x" * 10)


def faults_of(num_bytes: int) -> int:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    filled = b"x" * num_bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if filled else 0


def asked_for_large_pages(num_bytes: int) -> int:
    """The faults of as many bytes where the system itself is asked for large pages."""
    import mmap
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory[:: os.sysconf("SC_PAGE_SIZE")] = bytes(num_bytes // os.sysconf("SC_PAGE_SIZE"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def shout() -> str:
    os.write(1, b"noise on the way of the answers\n" * 100)
    print("more noise")
    return "heard"


def numbers(last: str) -> Iterator[int]:
    yield 1
    yield 2
    if last == "crash":
        crash()
    if last == "spin":
        spin()
    raise ValueError(last)


def array_and_crash() -> Iterator[np.ndarray]:
    yield np.zeros(5_000_000, dtype=np.uint8)
    crash()


def a_second_each() -> Iterator[int]:
    for number in range(4):
        start = time.process_time()
        while time.process_time() - start < 0.7:
            pass
        yield number


def test_what_a_function_gives_comes_back():
    assert run_limited(take, 1000, limits=LIMITS) == 1000
    picture = Image.effect_noise((2000, 1500), 50)
    assert run_limited(Image.Image.rotate, picture, 180, limits=LIMITS).tobytes() == picture.rotate(180).tobytes()
    assert run_limited(shout, limits=LIMITS) == "heard"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no pipe is made larger")
def test_a_system_that_gives_no_larger_pipe_is_read_in(monkeypatch):
    def refused(*_) -> None:
        raise PermissionError(1, "Operation not permitted")

    bounded._end_all()
    monkeypatch.setattr("fcntl.fcntl", refused)
    assert run_limited(take, 1000, limits=LIMITS) == 1000


def test_arrays_come_back_as_they_are_and_may_be_written_to():
    given = [np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3), np.zeros((0, 3)), np.arange(4.0)[::2]]
    found = run_limited(list, given, limits=LIMITS)
    assert [one.dtype for one in found] == [one.dtype for one in given]
    assert all(np.array_equal(one, other) for one, other in zip(found, given, strict=True))
    assert found[0].flags.writeable


def test_a_crash_behind_a_large_array_is_an_error():
    items = iterate_limited(array_and_crash, limits=LIMITS)
    assert next(items).nbytes == 5_000_000
    with pytest.raises(LimitError, match="its decoder crashed"):
        next(items)


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [
        (spin, (), "longer than 1 seconds"),
        (take, (2**30,), "too much memory"),
        (crash, (), "its decoder crashed"),
    ],
)
def test_a_limit_or_a_crash_is_an_error_and_the_next_call_goes_on(function, args, reason):
    with pytest.raises(LimitError, match=reason) as caught:
        run_limited(function, *args, limits=LIMITS)
    assert not caught.value.is_from_outside
    assert run_limited(take, 7, limits=LIMITS) == 7


@pytest.mark.parametrize("function", [wait_for_ever, lose_its_parent_and_wait])
def test_the_clock_ends_what_takes_no_processor_time(monkeypatch, function):
    monkeypatch.setattr(bounded, "_CLOCK_SECONDS_PER_SECOND", 2)
    start = time.monotonic()
    with pytest.raises(LimitError, match="longer than 2 seconds by the clock.* try again") as caught:
        run_limited(function, limits=LIMITS)
    assert caught.value.is_from_outside and time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("function", "args"), [(die_of, (signal.SIGKILL,)), (die_of, (signal.SIGTERM,)), (lose_its_parent, ())]
)
def test_what_the_system_ends_is_told_apart_from_a_crash(function, args):
    with pytest.raises(LimitError, match="from outside.* try again") as caught:
        run_limited(function, *args, limits=LIMITS)
    assert caught.value.is_from_outside
    assert run_limited(take, 7, limits=LIMITS) == 7


def test_what_a_function_raises_is_a_value_error_with_its_message(tmp_path):
    with pytest.raises(ValueError, match="the reason"):
        run_limited(refuse, limits=LIMITS)
    with pytest.raises(ValueError, match="too large"):
        run_limited(write, str(tmp_path / "x"), limits=LIMITS)


@pytest.mark.parametrize(("last", "error"), [("crash", LimitError), ("spin", LimitError), ("refused", ValueError)])
def test_what_came_before_an_error_is_kept(last, error):
    items = iterate_limited(numbers, last, limits=LIMITS)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(error):
        next(items)


def test_large_pieces_of_memory_lie_in_large_pages(monkeypatch):
    few = 2**26 // os.sysconf("SC_PAGE_SIZE") / 4
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split("."))) < (2, 35) or asked_for_large_pages(2**26) > few:
        pytest.skip("this system has no large pages to give, or its C library asks for none")
    assert run_limited(faults_of, 2**26, limits=LIMITS) < few
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")  # what a user sets stays
    assert bounded._environment()["GLIBC_TUNABLES"] == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"


def test_each_item_has_its_own_seconds():
    assert list(iterate_limited(a_second_each, limits=LIMITS)) == [0, 1, 2, 3]


def test_an_iterator_that_is_left_early_ends_its_process():
    items = iterate_limited(numbers, "spin", limits=LIMITS)
    assert next(items) == 1
    items.close()
    assert run_limited(take, 5, limits=LIMITS) == 5


def test_calls_at_the_same_time_have_processes_of_their_own():
    first, second = (iterate_limited(numbers, "refused", limits=LIMITS) for _ in range(2))
    assert [next(first), next(second), next(second), next(first)] == [1, 1, 2, 2]
    first.close()
    second.close()


def test_after_many_calls_at_the_same_time_few_processes_wait_for_the_next():
    with ThreadPoolExecutor(7) as pool:
        list(pool.map(lambda _: run_limited(time.sleep, 1, limits=ProcessLimits(seconds=10, memory=2**28)), range(7)))
    assert 1 <= len(bounded._idle) <= 4


def test_reading_needs_no_torch_and_no_guard_around_the_users_program(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"")
    Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / "picture.png")
    (tmp_path / "program.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from plume_embed.reading.read import Options, SourceFile, read_items\n"
        "print('started')\n"
        f"path = Path({str(tmp_path / 'picture.png')!r})\n"
        "file = SourceFile('picture.png', path, 'image', path.stat().st_size, path.stat().st_mtime_ns)\n"
        "print(next(read_items(file, len, Options(8, 10**8))).content['image'].size, 'torch' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "started\n(40, 30) False\n" and done.stderr == ""


def test_no_process_is_left_when_the_program_ends(tmp_path):
    program = "from plume_embed.reading import bounded\nbounded.warm_up()\nprint(bounded._idle[0]._process.pid)\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
