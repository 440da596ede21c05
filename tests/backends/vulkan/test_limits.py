"""What a device says of itself, and what becomes of arrays that exceed its largest buffer."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

import adaptive_compute as ac
from adaptive_compute.backends.vulkan import limits
from adaptive_compute.backends.vulkan.device import visible
from adaptive_compute.backends.vulkan.limits import LARGEST, Limits, devices
from adaptive_compute.backends.vulkan.runtime import runtime
from adaptive_compute.core.errors import ArgumentError, BackendUnavailable, NoKernelError, TooLargeError
from adaptive_compute.core.registry import registry

DEVICE = "vulkan:0"


def test_the_loader_and_kompute_say_the_same():
    import kp

    manager = kp.Manager(0)
    listed, properties = manager.list_devices(), manager.get_device_properties()
    assert [device.name for device in devices()] == [entry["device_name"] for entry in listed]
    first = devices()[0]
    assert first.name == properties["device_name"]
    assert first.invocations == properties["max_work_group_invocations"]
    assert list(first.group_size) == list(properties["max_work_group_size"])
    manager.destroy()


def test_every_limit_is_what_vulkan_promises_at_least():
    for device in devices():
        assert device.buffer >= 1 << 27
        assert device.shared_memory >= 16384
        assert device.invocations >= 128
        assert all(side >= minimum for side, minimum in zip(device.group_size, (128, 128, 64)))
        assert 1 <= device.subgroup <= 128
        assert 0 <= device.shuffle <= device.subgroup
        assert device.memory > 1 << 26
        assert 0 < device.timestamp_period < 1e4
        assert len(device.uuid) == 32
        assert tuple(map(int, device.api.split("."))) >= (1, 1, 0)
        assert device.kind in ("other", "integrated", "discrete", "virtual", "software")
        assert device.largest <= LARGEST


def test_doctor_tells_software_devices():
    facts = registry.backends()["vulkan"].facts(DEVICE)
    assert facts["kind"].startswith("a software driver") is devices()[0].software
    assert facts["device"] == devices()[0].name


@pytest.mark.without_vulkan
def test_error_codes_are_put_in_words(monkeypatch):
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.delenv(name, raising=False)
    limits._check(0, "anything")
    with pytest.raises(OSError, match=r"^no Vulkan driver is installed$"):
        limits._check(-9, "creating an instance")
    with pytest.raises(OSError, match="Vulkan answered -1 to listing devices"):
        limits._check(ctypes.c_uint32(-1).value, "listing devices")
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    with pytest.raises(OSError, match=r"VK_DRIVER_FILES=/nowhere\.json is the only place"):
        limits._check(-9, "creating an instance")


@pytest.mark.without_vulkan
def test_the_largest_buffer_is_never_what_kompute_cannot_count():
    device = Limits("big", "discrete", "", "", "1.3.0", (1 << 32) - 1, 1 << 15, 1024, (1, 1, 1), 32, 1 << 40, 1.0, True)
    assert device.largest == LARGEST < 1 << 32
    assert device.too_large(LARGEST) is None
    assert device.too_large(LARGEST + 1) == "a buffer of 4096 MiB exceeds the 4096 MiB of big"


# Arrays that exceed a buffer; the limit is made small, so that small arrays show it


@pytest.fixture
def small(shrink):
    """Give the device a largest buffer of 1 MiB."""
    shrink(1 << 20)


def test_host_arrays_above_the_limit_go_through_in_pieces(small):
    x = np.random.default_rng(0).standard_normal((3000, 128)).astype("float32")  # 1.5 MiB
    for name, axis in (("fft", 1), ("rfft", 1)):
        with ac.using("vulkan"):
            found = getattr(ac, name)(x, axis=axis)
        right = getattr(np.fft, name)(x.astype("float64"), axis=axis)
        assert np.linalg.norm(found - right) <= 6e-7 * np.linalg.norm(right), (name, axis)


def test_what_cannot_be_cut_is_refused_before_anything_is_allocated(small):
    x = np.zeros(1 << 18, "complex64")
    allocated = runtime(DEVICE).counts.allocated
    with ac.using("vulkan"), pytest.raises(NoKernelError, match="a buffer of 2 MiB exceeds the 1 MiB of"):
        ac.fft(x)
    assert runtime(DEVICE).counts.allocated == allocated
    assert not ac.fft(x).any(), "the processor computes it"


def test_an_array_above_the_limit_cannot_be_moved_there(small):
    allocated = runtime(DEVICE).counts.allocated
    with pytest.raises(ArgumentError, match="a buffer of 2 MiB exceeds the 1 MiB of"):
        ac.to(np.zeros(1 << 19, "float32"), DEVICE)
    assert runtime(DEVICE).counts.allocated == allocated


def test_a_result_above_the_limit_is_refused(small):
    x = ac.to(np.ones(1 << 17, "complex64"), DEVICE)  # 1 MiB
    with pytest.raises(NoKernelError, match="exceeds the 1 MiB"):
        ac.fft(x, n=1 << 18)
    with pytest.raises(TooLargeError, match="exceeds the 1 MiB"):
        runtime(DEVICE).take(1 << 21)


def test_the_real_limit_is_kept_without_allocating():
    largest = devices()[0].largest
    x = np.lib.stride_tricks.as_strided(np.zeros(1, "complex64"), (largest // 8 + 1024,), (0,))
    with ac.using("vulkan"), pytest.raises(NoKernelError, match="exceeds the"):
        ac.fft(x)


UUIDS = ["9d3c0011aa", "9d3c0022bb", "6d657361"]


@pytest.mark.parametrize(
    ("asked", "places"),
    [("", [0, 1, 2]), ("2", [2]), ("1, 0", [0, 1]), ("GPU-9d3c-0022", [1]), ("6d65,0", [0, 2]), ("0,0", [0])],
)
def test_devices_are_chosen_by_number_or_uuid_and_keep_their_places(asked, places):
    assert visible(asked, UUIDS) == places


@pytest.mark.parametrize("asked", ["3", "GPU-9d3c", "7777", "nvidia"])
def test_a_choice_that_names_no_single_device_is_refused_with_those_there_are(asked):
    with pytest.raises(BackendUnavailable, match=r"ADAPTIVE_VULKAN_DEVICES.*0 \(9d3c0011aa\).*2 \(6d657361\)"):
        visible(asked, UUIDS)
