# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python twin of adeos/include/vnode_abi.h: constants, enums, structs and ioctl numbers.

The header is the source and explains the members; tests/adeos/test_abi.py compiles it and compares
every constant, offset and size with this file.  Structs are NamedTuples whose annotations carry the
struct module's format; a Layout packs and unpacks them.
"""

from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple

from adeos.layout import Layout

VN_ABI_VERSION: Final = 1
VN_MAX_VNODES: Final = 32
VN_MAX_CPUS: Final = 16
VN_NAME_LEN: Final = 32

VN_REGION_ALIGN: Final = 0x200000
VN_REGION_MIN: Final = 0x4000000
VN_OFF_BOOT_PARAMS: Final = 0x10000
VN_OFF_CMDLINE: Final = 0x11000
VN_OFF_ACPI: Final = 0x80000
VN_OFF_BRIDGE: Final = 0x90000
VN_OFF_RAM: Final = 0x100000
VN_OFF_KERNEL: Final = 0x1000000

VN_SLOT_SIZE: Final = 0x10000
VN_SLOT_TRAMPOLINE: Final = 0x0
VN_SLOT_PAGE_TABLES: Final = 0x1000
VN_SLOT_IOAPIC: Final = 0x7000
VN_SLOT_RAM: Final = 0x8000

VN_ACPI_SIGNATURE: Final = "VNBR"

VN_BRIDGE_MAGIC: Final = 0x4547444952425644
VN_BR_ROOT: Final = 0x00000
VN_BR_VNODE: Final = 0x01000
VN_BR_BEATS: Final = 0x02000
VN_BR_CRASH: Final = 0x03000
VN_BR_CRASH_REGS: Final = 0x04000
VN_BR_SAMPLES: Final = 0x06000
VN_BR_DEBUG: Final = 0x08000
VN_BR_DEBUG_REGS: Final = 0x09000
VN_BR_CONTROL: Final = 0x0B000
VN_BR_CONSOLE_OUT: Final = 0x0C000
VN_BR_CONSOLE_IN: Final = 0x1E000
VN_BR_KMSG: Final = 0x20000
VN_BR_GRANTS: Final = 0x30000
VN_BR_WARM: Final = 0x38000
VN_BR_ASK: Final = 0x39000
VN_BR_ASK_DATA: Final = 0x3A000
VN_BR_FREE_PAGES: Final = 0x40000
VN_BRIDGE_SIZE: Final = 0x70000
VN_KMSG_SIZE: Final = 0x10000
VN_CONSOLE_OUT_BYTES: Final = 0x10000
VN_CONSOLE_IN_BYTES: Final = 0x1000
VN_FREE_PAGES_BYTES: Final = 0x30000

VN_F_INJECT: Final = 1 << 0
VN_F_FREEZE: Final = 1 << 1

VN_FRAME_GP: Final = 1 << 0
VN_FRAME_CONTROL: Final = 1 << 1
VN_FRAME_USER: Final = 1 << 2
VN_FRAME_CRASHED: Final = 1 << 3

VN_CRASH_EMPTY: Final = 0
VN_CRASH_WRITING: Final = 1
VN_CRASH_DONE: Final = 2

VN_DBG_RUN: Final = 0
VN_DBG_PARK: Final = 1
VN_DBG_F_REGS: Final = 1 << 0
VN_DBG_F_STEP: Final = 1 << 1
VN_DBG_F_HW: Final = 1 << 2
VN_DBG_F_MASK: Final = 1 << 3
VN_DBG_F_PUSHF: Final = 1 << 4
VN_DBG_F_CLI: Final = 1 << 5
VN_DBG_RUNNING: Final = 0
VN_DBG_PARKED: Final = 1
VN_MAX_BREAKPOINTS: Final = 128

VN_ROOT_MAGIC: Final = 0x544F4F5244564E56
VN_ROOT_SIZE: Final = 0x200000
VN_ROOT_TABLE: Final = 0x1000
VN_ROOT_SHADOW: Final = 0x100000
VN_ROOT_LAST: Final = 0x80000
VN_ROOT_LAST_REGS: Final = 0x81000
VN_LAST_MAGIC: Final = 0x5453414C44564E56
VN_LAST_RANGES: Final = 16
VN_LAST_PERIOD_MS: Final = 100

KMB_MAX_RANGES: Final = 16
KMB_IOC: Final = 0xB5
KMB_CPU_IDLE: Final = 0
KMB_CPU_PARKED: Final = 1
KMB_CPU_STARTED: Final = 2
KMB_CPU_LOST: Final = 3
KMB_LEASE_MAX_MS: Final = 60000
KMB_START_WAIT_MAX_US: Final = 1000000
KMB_LEASE_RENEW: Final = 0x80000000
KMB_MAX_SPANS: Final = 0x40000
KMB_POKE_MAX: Final = 0x10000
KMB_ARM_PIECES: Final = 8
KMB_ARM_HELD_MAX: Final = 0x20000000
KMB_FIRE_SILENCE_MAX: Final = 3600000
KMB_FIRE_BRIDGE: Final = VN_BR_KMSG + VN_KMSG_SIZE

VN_LAYERS: Final = 3

VN_MAX_GRANTS: Final = 8
VN_GRANT_CONTROL: Final = 1 << 0
VN_ASK_DATA_MAX: Final = 0x1000


class Layer(IntEnum):
    """enum vn_layer: the three layers in which a CPU shows that it lives."""

    IRQ = 0
    SCHED = 1
    USER = 2


class State(IntEnum):
    """enum vn_state: what the vnode itself says."""

    NONE = 0
    AGENT = 1
    RUNNING = 2
    CRASHED = 3
    HALTED = 4
    REBOOT = 5
    KEXEC = 6


class Reason(IntEnum):
    """enum vn_reason: why a crash record was written."""

    NONE = 0
    PANIC = 1
    OOPS = 2
    MCE = 3


class Cause(IntEnum):
    """enum vn_cause: why a CPU parked for the debugger."""

    NONE = 0
    ASKED = 1
    BREAK = 2
    DEBUG = 3


class Cmd(IntEnum):
    """enum vn_cmd: commands from the root to the agent."""

    NONE = 0
    PING = 1
    INJECT = 2
    HALT = 3
    REBOOT = 4
    SYSRQ = 5
    FREEZE = 6


class WarmState(IntEnum):
    """enum vn_warm_state: how far the vnode is with being frozen."""

    NONE = 0
    READY = 1
    FREEZING = 2
    FROZEN = 3
    REFUSED = 4
    RESUMED = 5


class Inject(IntEnum):
    """enum vn_inject: faults for trying things out."""

    PANIC = 1
    OOPS = 2
    HANG = 3
    SOFTLOCKUP = 4
    IRQHANG = 5
    HALT = 6
    REBOOT = 7
    STUCK = 8


class StatusState(IntEnum):
    """enum vn_status_state: the root's own word on a vnode."""

    OFFLINE = 0
    LOADING = 1
    BOOTING = 2
    RUNNING = 3
    SUSPECT = 4
    CRASHED = 5
    FENCED = 6
    RESTARTING = 7
    HALTED = 8
    STOPPED = 9
    QUARANTINED = 10
    HELD = 11


class AskOp(IntEnum):
    """enum vn_ask_op: what a vnode asks the root to do to one it may control."""

    NONE = 0
    CONTROL = 1
    POKE = 2
    BREAK = 3
    NMI = 4


VN_NEVER = 0xFFFFFFFF


class Way(IntEnum):
    """enum vn_way: how a vnode was brought up."""

    COLD = 0
    WARM = 1
    STANDBY = 2


class FireState(IntEnum):
    """enum kmb_fire_state: how far a vnode's in-kernel fire is."""

    NONE = 0
    ARMED = 1
    FIRED = 2
    REFUSED = 3
    FAILED = 4


class FireCause(IntEnum):
    """enum kmb_fire_cause: why it fired."""

    NONE = 0
    RECORD = 1
    IRQ = 2
    SCHED = 3
    USER = 4


class LastState(IntEnum):
    """enum vn_last_state: how the root's kernel is, as it says itself."""

    ALIVE = 0
    PANIC = 1
    HALTED = 2


ENUMS: Final[dict[str, tuple[str, type[IntEnum]]]] = {
    "vn_layer": ("VN_LAYER_", Layer),
    "vn_state": ("VN_S_", State),
    "vn_reason": ("VN_R_", Reason),
    "vn_cause": ("VN_C_", Cause),
    "vn_cmd": ("VN_CMD_", Cmd),
    "vn_inject": ("VN_I_", Inject),
    "vn_warm_state": ("VN_W_", WarmState),
    "vn_way": ("VN_WAY_", Way),
    "vn_status_state": ("VN_ST_", StatusState),
    "vn_ask_op": ("VN_ASK_", AskOp),
    "vn_last_state": ("VN_L_", LastState),
    "kmb_fire_state": ("KMB_F_", FireState),
    "kmb_fire_cause": ("KMB_C_", FireCause),
}
"""C enum name -> (prefix of its enumerators in C, Python twin)."""

# fmt: off
USER_REGS: Final = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
)
# fmt: on
"""Names of Frame.regs, the order of struct user_regs_struct (arch/x86/include/asm/user_64.h)."""

U32 = Annotated[int, "I"]
S32 = Annotated[int, "i"]
U64 = Annotated[int, "Q"]


class Range(NamedTuple):
    """Contiguous physical memory, bytes."""

    base: U64
    size: U64

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.base + self.size

    def contains(self, other: "Range") -> bool:
        """Whether all of `other` lies inside."""
        return self.base <= other.base and other.end <= self.end

    def overlaps(self, other: "Range") -> bool:
        """Whether a byte belongs to both."""
        return self.base < other.end and other.base < self.end


class RootSide(NamedTuple):
    """struct vn_root_side: what the root tells the vnode."""

    magic: U64
    abi: U32
    size: U32
    vnode_id: U32
    incarnation: U32
    region_base: U64
    region_size: U64
    slot_base: U32
    slot_size: U32
    ncpus: U32
    flags: U32
    apicid: Annotated[tuple[int, ...], "16I"]
    root_apicid: U32
    root_vector: U32
    tsc_khz: U64
    start_tsc: U64
    wall_ns: U64
    period_us: Annotated[tuple[int, ...], "4I"]
    name: Annotated[str, "32s"]
    seed: Annotated[bytes, "32s"]
    cmd_seq: U32
    cmd: Annotated[Cmd, "I"]
    cmd_arg: U64


class VnodeSide(NamedTuple):
    """struct vn_vnode_side: what the vnode's agent says of itself."""

    abi: U32
    incarnation: U32
    state: Annotated[State, "I"]
    ncpus: U32
    vector: U32
    apicid: U32
    vmcoreinfo_pa: U64
    vmcoreinfo_size: U64
    phys_base: U64
    agent_tsc: U64
    user_tsc: U64
    rings: U32
    rung: U32
    cmd_done: U32
    cmd_result: U32
    hz: U32
    console: U32
    release: Annotated[str, "64s"]
    grants_done: U32 = 0
    reserved: U32 = 0


class Beat(NamedTuple):
    """struct vn_beat: heartbeats of one CPU; index `count` and `tsc` by Layer."""

    count: Annotated[tuple[int, ...], "4Q"]  # type: ignore[assignment]  # hides tuple.count()
    tsc: Annotated[tuple[int, ...], "4Q"]
    reserved: Annotated[tuple[int, ...], "8Q"] = (0,) * 8


class Frame(NamedTuple):
    """struct vn_frame: registers of one CPU; `regs` in the order of USER_REGS."""

    seq: U32
    flags: U32
    tsc: U64
    regs: Annotated[tuple[int, ...], "27Q"]
    kernel_gs_base: U64
    cr0: U64
    cr2: U64
    cr3: U64
    cr4: U64
    efer: U64
    gdt_base: U64
    idt_base: U64
    gdt_limit: U32
    idt_limit: U32
    tr: U32
    ldt: U32
    current_task: U64
    reserved: Annotated[tuple[int, ...], "21Q"] = (0,) * 21

    def reg(self, name: str) -> int:
        """A general register by its name in USER_REGS; KeyError for other names."""
        return self.regs[_REG_INDEX[name]]


_REG_INDEX: Final = {name: index for index, name in enumerate(USER_REGS)}


class Crash(NamedTuple):
    """struct vn_crash: the crash record."""

    state: U32
    reason: Annotated[Reason, "I"]
    cpu: U32
    incarnation: U32
    tsc: U64
    done_tsc: U64
    cpus_saved: U64
    pid: U32
    kmsg_len: U32
    trapnr: S32
    reserved: U32
    error_code: U64
    comm: Annotated[str, "16s"]
    message: Annotated[str, "256s"]


class Debug(NamedTuple):
    """struct vn_debug: debug mailbox of one CPU."""

    nmi: U32
    request: U32
    seq: U32
    save_seq: U32
    flags: U32
    reserved0: U32
    dr: Annotated[tuple[int, ...], "4Q"]
    dr7: U64
    state: U32
    done: U32
    saved: U32
    cause: Annotated[Cause, "I"]
    stops: U32
    watches: U32
    dr6: U64
    stop_tsc: U64
    reserved: Annotated[tuple[int, ...], "19Q"] = (0,) * 19


class Control(NamedTuple):
    """struct vn_control: a debugger's hold on the vnode."""

    until_tsc: U64
    nbreaks: U32
    reserved: U32
    entry_start: U64
    entry_end: U64
    die_chain: U64
    breakpoint: Annotated[tuple[int, ...], "128Q"]


class Ring(NamedTuple):
    """struct vn_ring: head of a byte ring."""

    size: U32
    reserved0: Annotated[tuple[int, ...], "15I"]
    head: U32
    reserved1: Annotated[tuple[int, ...], "15I"]
    tail: U32
    reserved2: Annotated[tuple[int, ...], "15I"]


class Warm(NamedTuple):
    """struct vn_warm: how a vnode that is frozen is to be resumed."""

    state: Annotated[WarmState, "I"]
    error: U32
    resume_cr3: U64
    resume_entry: U64
    resume_cr4: U64
    free_pages: U64
    begun_tsc: U64
    frozen_tsc: U64
    entry_tsc: U64
    cpu_tsc: U64
    devices_tsc: U64
    thawed_tsc: U64
    reason: Annotated[str, "128s"]


class RootHead(NamedTuple):
    """struct vn_root_head: the daemon's own signs of life."""

    magic: U64
    abi: U32
    pid: U32
    beat: U64
    beat_tsc: U64
    start_tsc: U64
    tsc_khz: U64
    late_ticks: U64
    period_us: U32
    epoch: U32


class Last(NamedTuple):
    """struct vn_last: the root kernel's signs of life and its last word."""

    magic: U64
    abi: U32
    state: Annotated[LastState, "I"]
    beat: U64
    beat_tsc: U64
    tsc: U64
    vmcoreinfo_pa: U64
    vmcoreinfo_size: U64
    successor: U32
    nranges: U32
    cpu: U32
    pid: U32
    comm: Annotated[str, "16s"]
    message: Annotated[str, "256s"]
    release: Annotated[str, "64s"]
    range: Annotated[tuple[Range, ...], (Range, VN_LAST_RANGES)]


class Status(NamedTuple):
    """struct vn_status: what the daemon says of a vnode."""

    seq: U32
    id: U32
    state: Annotated[StatusState, "I"]
    incarnation: U32
    since_tsc: U64
    region_base: U64
    region_size: U64
    slot_base: U32
    slot_size: U32
    ncpus: U32
    restarts: U32
    incidents: U32
    last_incident: U32
    name: Annotated[str, "32s"]
    reason: Annotated[str, "32s"]
    cpu: Annotated[tuple[int, ...], "16I"]
    apicid: Annotated[tuple[int, ...], "16I"]
    limit_us: Annotated[tuple[int, ...], "4I"]
    grants: U32 = 0
    controls: U32 = 0
    way: Annotated[Way, "I"] = Way.COLD
    restarts_left: U32 = VN_NEVER
    image_tsc: U64 = 0
    standby_tsc: U64 = 0
    reserved: Annotated[tuple[int, ...], "20Q"] = (0,) * 20


class RootInfo(NamedTuple):
    """struct vn_root_info: KMB_INFO; `range` holds the valid entries only after Machine.info()."""

    abi: U32
    x2apic: U32
    tsc_khz: U64
    tsc: U64
    boot_apicid: U32
    nranges: U32
    low_base: U64
    low_size: U64
    root_pa: U64
    owner_pid: U32
    ncpus: U32
    range: Annotated[tuple[Range, ...], (Range, 16)]


class KmbCpu(NamedTuple):
    """struct kmb_cpu: one of the CPUs given to vnodes."""

    cpu: U32
    apicid: U32
    state: U32
    vnode: U32


class KmbCpus(NamedTuple):
    """struct kmb_cpus: KMB_CPUS."""

    n: U32
    reserved: U32
    cpu: Annotated[tuple[KmbCpu, ...], (KmbCpu, 64)]


class KmbBind(NamedTuple):
    """struct kmb_bind: KMB_BIND, KMB_QUERY."""

    vnode: U32
    ncpus: U32 = 0
    cpu: Annotated[tuple[int, ...], "16I"] = ()
    region_base: U64 = 0
    region_size: U64 = 0
    slot_base: U32 = 0
    slot_size: U32 = 0
    vector: U32 = 0
    dest_apicid: U32 = 0
    started: U32 = 0
    rings: U32 = 0
    start_tsc: U64 = 0
    holder: U32 = 0
    reserved: U32 = 0
    held_until: U64 = 0


class KmbStart(NamedTuple):
    """struct kmb_start: KMB_START."""

    vnode: U32
    wait_us: U32
    cr3: U64
    entry: U64
    rsi: U64
    tsc: U64 = 0


class KmbResume(NamedTuple):
    """struct kmb_resume: KMB_RESUME."""

    vnode: U32
    wait_us: U32
    cr3: U64
    entry: U64
    cr4: U64
    tsc: U64 = 0


class KmbPark(NamedTuple):
    """struct kmb_park: KMB_PARK."""

    vnode: U32
    timeout_ms: U32
    parked: U32 = 0
    reserved: U32 = 0
    tsc: U64 = 0


class KmbIpi(NamedTuple):
    """struct kmb_ipi: KMB_NMI, KMB_IPI."""

    vnode: U32
    cpu: U32
    vector: U32 = 0
    reserved: U32 = 0


class KmbControl(NamedTuple):
    """struct kmb_control: KMB_CONTROL."""

    vnode: U32
    lease_ms: U32
    holder: U32 = 0
    reserved: U32 = 0
    until_tsc: U64 = 0
    entry_start: U64 = 0
    entry_end: U64 = 0
    die_chain: U64 = 0


class KmbPoke(NamedTuple):
    """struct kmb_poke: KMB_POKE; `data` is an address in this process."""

    vnode: U32
    size: U32
    pa: U64
    data: U64


class KmbBreak(NamedTuple):
    """struct kmb_break: KMB_BREAK."""

    vnode: U32
    set: U32
    va: U64
    pa: U64


class KmbSpan(NamedTuple):
    """struct kmb_span: pages of KMB_PUT_BACK; offsets and bytes."""

    to: U64
    source: U64
    size: U64


class KmbPutBack(NamedTuple):
    """struct kmb_put_back: KMB_PUT_BACK."""

    to_base: U64
    to_size: U64
    from_base: U64
    from_size: U64
    spans: U64
    nspans: U32
    reserved: U32 = 0
    written: U64 = 0


class KmbPiece(NamedTuple):
    """struct kmb_piece: part of the vnode that a fire starts; `data` as in KmbPoke, 0 = none."""

    pa: U64
    size: U64
    data: U64
    sha256: Annotated[bytes, "32s"]


class KmbArm(NamedTuple):
    """struct kmb_arm: KMB_ARM."""

    vnode: U32
    npieces: U32
    incarnation: U32
    successor: U32
    silence_ms: U32
    limit_ms: Annotated[tuple[int, ...], "3I"]
    cookie: U64
    region_base: U64
    region_size: U64
    cr3: U64
    entry: U64
    rsi: U64
    piece: Annotated[tuple[KmbPiece, ...], (KmbPiece, KMB_ARM_PIECES)]


class KmbFire(NamedTuple):
    """struct kmb_fire: KMB_FIRE."""

    vnode: U32
    state: Annotated[FireState, "I"] = FireState.NONE
    cause: Annotated[FireCause, "I"] = FireCause.NONE
    cpu: U32 = 0
    incarnation: U32 = 0
    successor: U32 = 0
    silence_ms: U32 = 0
    error: U32 = 0
    asked: U32 = 0
    answered: U32 = 0
    cookie: U64 = 0
    old_base: U64 = 0
    old_size: U64 = 0
    region_base: U64 = 0
    region_size: U64 = 0
    wall_ns: U64 = 0
    daemon_tsc: U64 = 0
    fault_tsc: U64 = 0
    seen_tsc: U64 = 0
    fenced_tsc: U64 = 0
    captured_tsc: U64 = 0
    loaded_tsc: U64 = 0
    started_tsc: U64 = 0
    data: U64 = 0
    size: U64 = 0

    @property
    def old(self) -> Range:
        """The region that it left."""
        return Range(self.old_base, self.old_size)

    @property
    def region(self) -> Range:
        """The region in which it was, or will be, started."""
        return Range(self.region_base, self.region_size)


class KmbEvent(NamedTuple):
    """struct kmb_event: what read() of /dev/kmb gives."""

    vnode: U32
    rings: U32
    tsc: U64
    last_tsc: U64


class Grant(NamedTuple):
    """struct vn_grant: another vnode that this one may look at."""

    flags: U32
    started: U32
    start_tsc: U64
    reserved: Annotated[tuple[int, ...], "2Q"] = (0,) * 2


class Grants(NamedTuple):
    """struct vn_grants: VN_BR_GRANTS, VNODE_GRANTS."""

    seq: U32
    n: U32
    root_pa: U64
    grant: Annotated[tuple[Grant, ...], (Grant, VN_MAX_GRANTS)]
    status: Annotated[tuple[Status, ...], (Status, VN_MAX_GRANTS)]


class Ask(NamedTuple):
    """struct vn_ask: VN_BR_ASK; raises ValueError where no agent writes such an `op`."""

    seq: U32
    op: Annotated[AskOp, "I"]
    vnode: U32
    number: U32
    client: U64
    address: Annotated[tuple[int, ...], "3Q"]
    done: U32
    error: U32
    holder: U32
    reserved0: U32
    until_tsc: U64
    reserved: Annotated[tuple[int, ...], "7Q"]


class Self(NamedTuple):
    """struct vn_self: VNODE_SELF."""

    vnode_id: U32
    incarnation: U32
    ncpus: U32
    user_period_us: U32
    name: Annotated[str, "32s"]


ROOT_SIDE: Final = Layout("vn_root_side", RootSide)
VNODE_SIDE: Final = Layout("vn_vnode_side", VnodeSide)
BEAT: Final = Layout("vn_beat", Beat)
FRAME: Final = Layout("vn_frame", Frame)
CRASH: Final = Layout("vn_crash", Crash)
DEBUG: Final = Layout("vn_debug", Debug)
CONTROL: Final = Layout("vn_control", Control)
RING: Final = Layout("vn_ring", Ring)
WARM: Final = Layout("vn_warm", Warm)
ROOT_HEAD: Final = Layout("vn_root_head", RootHead)
LAST: Final = Layout("vn_last", Last)
STATUS: Final = Layout("vn_status", Status)
ROOT_INFO: Final = Layout("vn_root_info", RootInfo)
KMB_CPU: Final = Layout("kmb_cpu", KmbCpu)
CPUS: Final = Layout("kmb_cpus", KmbCpus)
BIND: Final = Layout("kmb_bind", KmbBind)
START: Final = Layout("kmb_start", KmbStart)
RESUME: Final = Layout("kmb_resume", KmbResume)
PARK: Final = Layout("kmb_park", KmbPark)
IPI: Final = Layout("kmb_ipi", KmbIpi)
RANGE: Final = Layout("kmb_range", Range)
KMB_HOLD: Final = Layout("kmb_control", KmbControl)
POKE: Final = Layout("kmb_poke", KmbPoke)
BREAK: Final = Layout("kmb_break", KmbBreak)
SPAN: Final = Layout("kmb_span", KmbSpan)
PUT_BACK: Final = Layout("kmb_put_back", KmbPutBack)
PIECE: Final = Layout("kmb_piece", KmbPiece)
ARM: Final = Layout("kmb_arm", KmbArm)
FIRE: Final = Layout("kmb_fire", KmbFire)
EVENT: Final = Layout("kmb_event", KmbEvent)
SELF: Final = Layout("vn_self", Self)
GRANT: Final = Layout("vn_grant", Grant)
GRANTS: Final = Layout("vn_grants", Grants)
ASK: Final = Layout("vn_ask", Ask)

STRUCTS: Final[dict[str, Layout[Any]]] = {
    layout.c_name: layout for layout in list(globals().values()) if isinstance(layout, Layout)
}
"""C struct name -> its layout."""

_NONE, _WRITE, _READ = 0, 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    """_IOC of include/uapi/asm-generic/ioctl.h, type KMB_IOC."""
    return direction << 30 | size << 16 | KMB_IOC << 8 | number


KMB_INFO: Final = _ioc(_READ, 1, ROOT_INFO.size)
KMB_CPUS: Final = _ioc(_READ, 2, CPUS.size)
KMB_CLAIM: Final = _ioc(_NONE, 3, 0)
KMB_BIND: Final = _ioc(_READ | _WRITE, 4, BIND.size)
KMB_UNBIND: Final = _ioc(_WRITE, 5, 4)
KMB_QUERY: Final = _ioc(_READ | _WRITE, 6, BIND.size)
KMB_START: Final = _ioc(_READ | _WRITE, 7, START.size)
KMB_PARK: Final = _ioc(_READ | _WRITE, 8, PARK.size)
KMB_NMI: Final = _ioc(_WRITE, 9, IPI.size)
KMB_IPI: Final = _ioc(_WRITE, 10, IPI.size)
KMB_CLEAR: Final = _ioc(_WRITE, 11, RANGE.size)
KMB_CONTROL: Final = _ioc(_READ | _WRITE, 12, KMB_HOLD.size)
KMB_POKE: Final = _ioc(_WRITE, 13, POKE.size)
KMB_BREAK: Final = _ioc(_WRITE, 14, BREAK.size)
KMB_RESUME: Final = _ioc(_READ | _WRITE, 15, RESUME.size)
KMB_PUT_BACK: Final = _ioc(_READ | _WRITE, 16, PUT_BACK.size)
KMB_SUCCESSOR: Final = _ioc(_WRITE, 24, 4)
KMB_ARM: Final = _ioc(_WRITE, 28, ARM.size)
KMB_DISARM: Final = _ioc(_WRITE, 29, 4)
KMB_FIRE: Final = _ioc(_READ | _WRITE, 30, FIRE.size)
KMB_SETTLE: Final = _ioc(_WRITE, 31, 4)
VNODE_SELF: Final = _ioc(_READ, 32, SELF.size)
VNODE_BEAT: Final = _ioc(_NONE, 33, 0)
VNODE_GRANTS: Final = _ioc(_READ, 34, GRANTS.size)
