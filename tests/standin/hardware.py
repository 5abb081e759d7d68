"""The simulated machine: its devices, its driver, what is current; `cupy.cuda.runtime`."""

from __future__ import annotations

import dataclasses

from . import errors

CUDA_13_2 = 13020

# Of a device, by the names that CuPy gives them; those of an H100.
ATTRIBUTES = {
    "MultiProcessorCount": 132,
    "SingleToDoublePrecisionPerfRatio": 2,
    "MaxSharedMemoryPerBlockOptin": 227 << 10,
    "MaxSharedMemoryPerMultiprocessor": 228 << 10,
    "ReservedSharedMemoryPerBlock": 1 << 10,
}


@dataclasses.dataclass
class Machine:
    """Change a field at any time: `standin.machine.memory = 4096`."""

    devices: int = 1
    memory: int = 80 << 30  # bytes, of each device
    error: int | None = None  # every call of the CUDA runtime fails with this status
    driver_version: int = CUDA_13_2
    runtime_version: int = CUDA_13_2
    current_device: int = 0
    # Whether it reads any host memory by itself, as a GH200 does: copies are then asynchronous.
    pageable_access: bool = False
    used: dict[int, int] = dataclasses.field(default_factory=dict)  # bytes in use, per device
    blocks: dict[int, list] = dataclasses.field(default_factory=dict)  # of each device's pool.py

    def require_device(self) -> None:
        """Raise what CUDA raises where there is no usable device."""
        if self.error is not None:
            raise errors.CUDARuntimeError(self.error)
        if self.devices == 0:
            raise errors.CUDARuntimeError(errors.NO_DEVICE)

    def require(self, device: int) -> None:
        self.require_device()
        if not 0 <= device < self.devices:
            raise errors.CUDARuntimeError(errors.INVALID_DEVICE)


machine = Machine()


def getDeviceCount() -> int:
    machine.require_device()
    return machine.devices


def getDevice() -> int:
    machine.require_device()
    return machine.current_device


def getDeviceProperties(device: int) -> dict[str, object]:
    """The few entries that are asked for; the name comes as bytes."""
    machine.require(device)
    return {
        "name": b"Stand-in for a GPU",
        "uuid": b"a device of its ",
        "major": 9,
        "minor": 0,
        "totalGlobalMem": machine.memory,
        "multiProcessorCount": 4,  # few: a grid sized by it stays quick on a CPU
        "maxThreadsPerMultiProcessor": 2048,
        "sharedMemPerBlock": 48 << 10,
        "sharedMemPerBlockOptin": 227 << 10,
        "sharedMemPerMultiprocessor": 228 << 10,
        "warpSize": 32,
    }


def memGetInfo() -> tuple[int, int]:
    """(free, total), in bytes, of the current device."""
    machine.require_device()
    blocks = machine.blocks.get(machine.current_device, [])
    return machine.memory - sum(part.size for block in blocks for part in block), machine.memory


def driverGetVersion() -> int:
    """0 without a driver; never raises."""
    return machine.driver_version


def nvrtcGetVersion() -> tuple[int, int]:
    return 13, 0


def runtimeGetVersion() -> int:
    """The version that CuPy brought with it; never raises."""
    return machine.runtime_version


class Device:
    """`with Device(1): ...` makes device 1 current. Any number is taken until it is used."""

    def __init__(self, device: int | Device | None = None):
        if device is None:
            device = getDevice()
        self._id = device.id if isinstance(device, Device) else int(device)
        self._before: list[int] = []

    @property
    def id(self) -> int:
        return self._id

    @property
    def compute_capability(self) -> str:
        properties = getDeviceProperties(self._id)
        return f"{properties['major']}{properties['minor']}"

    @property
    def attributes(self) -> dict[str, int]:
        machine.require(self._id)
        return dict(ATTRIBUTES)

    @property
    def mem_info(self) -> tuple[int, int]:
        with self:
            return memGetInfo()

    def use(self) -> None:
        machine.require(self._id)
        machine.current_device = self._id

    def __enter__(self) -> Device:
        before = getDevice()
        self.use()
        self._before.append(before)
        return self

    def __exit__(self, *exception: object) -> None:
        machine.current_device = self._before.pop()

    def __int__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self._id}>"


def check_current(device: int) -> None:
    """CuPy refuses an array of another device than the current one."""
    if device != machine.current_device:
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {device} while current = {machine.current_device}"
        )
