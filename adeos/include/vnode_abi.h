/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * The vnode-debug ABI: everything that more than one program must agree on.
 *
 *   1. the layout of a vnode's memory region and of its low slot
 *   2. the bridge: the shared memory between a vnode and the root
 *   3. the root bridge: what the root's daemon publishes for observers
 *   4. the /dev/kmb ioctls (root kernel <-> root user space)
 *   5. the /dev/vnode and /dev/vnode-peers ioctls (vnode kernel <-> vnode user
 *      space), and what the root grants a vnode of others
 *
 * Rules: little endian; every member naturally aligned, so no compiler pads;
 * "reserved" members are zero when written and not read; one writer a struct,
 * named in its comment.  Where several words must agree a sequence counter
 * guards them: odd while the writer is at it.  The root trusts nothing that a
 * vnode wrote: see adeos/bridge.py for the checks.  The Python twin of this
 * file is adeos/abi.py; tests/adeos/test_abi.py compiles this file and
 * compares every offset.
 *
 * TSC values are raw cycles, comparable between the CPUs of one machine;
 * struct vn_root_info tells tsc_khz.
 */
#ifndef VNODE_ABI_H
#define VNODE_ABI_H

#include <linux/types.h>
#include <linux/ioctl.h>

#define VN_ABI_VERSION		1
#define VN_MAX_VNODES		32	/* ids 1..31; 0 is the root */
#define VN_MAX_CPUS		16	/* of one vnode */
#define VN_NAME_LEN		32

/* --- 1. Layout of a region (contiguous, 2 MiB aligned) and a low slot --- */

#define VN_REGION_ALIGN		0x200000
#define VN_REGION_MIN		0x4000000	/* 64 MiB */
#define VN_OFF_BOOT_PARAMS	0x10000
#define VN_OFF_CMDLINE		0x11000		/* 4 KiB, NUL-terminated */
#define VN_OFF_ACPI		0x80000		/* 64 KiB, e820 ACPI data */
#define VN_OFF_BRIDGE		0x90000		/* struct vn_bridge, e820 reserved */
#define VN_OFF_RAM		0x100000	/* from here on RAM to the end */
#define VN_OFF_KERNEL		0x1000000	/* bzImage's protected-mode part */

#define VN_SLOT_SIZE		0x10000		/* a CPU; below 1 MiB, >= 0x10000 */
#define VN_SLOT_TRAMPOLINE	0x0		/* struct vn_trampoline, by kmb.ko */
#define VN_SLOT_PAGE_TABLES	0x1000		/* of the boot, later of a resume; up to IOAPIC */
#define VN_SLOT_IOAPIC		0x7000		/* a page of 0xff: "no IOAPIC here" */
#define VN_SLOT_RAM		0x8000		/* from here on the vnode's RAM */

/* The bridge is told to the vnode by an ACPI table of this signature:
 * standard 36-byte header, then __u64 physical address, __u32 size,
 * __u32 VN_ABI_VERSION. */
#define VN_ACPI_SIGNATURE	"VNBR"

/* --- 2. The bridge --- */

#define VN_BRIDGE_MAGIC		0x4547444952425644ULL	/* "DVBRIDGE" */

/* Offsets within the bridge */
#define VN_BR_ROOT		0x00000		/* struct vn_root_side */
#define VN_BR_VNODE		0x01000		/* struct vn_vnode_side */
#define VN_BR_BEATS		0x02000		/* struct vn_beat [VN_MAX_CPUS] */
#define VN_BR_CRASH		0x03000		/* struct vn_crash */
#define VN_BR_CRASH_REGS	0x04000		/* struct vn_frame [VN_MAX_CPUS] */
#define VN_BR_SAMPLES		0x06000		/* struct vn_frame [VN_MAX_CPUS] */
#define VN_BR_DEBUG		0x08000		/* struct vn_debug [VN_MAX_CPUS] */
#define VN_BR_DEBUG_REGS	0x09000		/* struct vn_frame [VN_MAX_CPUS] */
#define VN_BR_CONTROL		0x0b000		/* struct vn_control */
#define VN_BR_CONSOLE_OUT	0x0c000		/* struct vn_ring, then bytes */
#define VN_BR_CONSOLE_IN	0x1e000		/* struct vn_ring, then bytes */
#define VN_BR_KMSG		0x20000		/* kernel log tail of a crash */
#define VN_BR_GRANTS		0x30000		/* struct vn_grants */
#define VN_BR_WARM		0x38000		/* struct vn_warm */
#define VN_BR_ASK		0x39000		/* struct vn_ask */
#define VN_BR_ASK_DATA		0x3a000		/* bytes of VN_ASK_POKE */
#define VN_BR_FREE_PAGES	0x40000		/* bit a page of the region: free when frozen */
#define VN_BRIDGE_SIZE		0x70000		/* to VN_OFF_RAM; the rest is spare */
#define VN_KMSG_SIZE		0x10000
#define VN_CONSOLE_OUT_BYTES	0x10000		/* power of two */
#define VN_CONSOLE_IN_BYTES	0x1000		/* power of two */
#define VN_FREE_PAGES_BYTES	0x30000		/* for regions up to 6 GiB */

/* Flags of vn_root_side.flags */
#define VN_F_INJECT		(1 << 0)	/* VN_CMD_INJECT is allowed */
#define VN_F_FREEZE		(1 << 1)	/* the root freezes it once it is ready */

/**
 * enum vn_layer - the three layers in which a CPU shows that it lives
 * @VN_LAYER_IRQ: a timer's hard interrupt
 * @VN_LAYER_SCHED: a kernel thread bound to the CPU was scheduled
 * @VN_LAYER_USER: a user process bound to the CPU ran
 */
enum vn_layer { VN_LAYER_IRQ, VN_LAYER_SCHED, VN_LAYER_USER, VN_LAYERS };

/**
 * struct vn_root_side - what the root tells the vnode (writer: root)
 * @magic: VN_BRIDGE_MAGIC
 * @abi: VN_ABI_VERSION
 * @size: VN_BRIDGE_SIZE
 * @vnode_id: 1..31
 * @incarnation: counts the starts of this vnode; the agent echoes it
 * @region_base: physical address of the region, bytes
 * @region_size: bytes
 * @slot_base: physical address of the low slot
 * @slot_size: bytes
 * @ncpus: number of CPUs, also of valid entries of @apicid
 * @flags: VN_F_*
 * @apicid: APIC ids of the vnode's CPUs, the boot CPU first
 * @root_apicid: where the portal to the root goes
 * @root_vector: its interrupt vector; one a vnode, so the root knows who rang
 * @tsc_khz: TSC frequency
 * @start_tsc: TSC just before the SIPI of this incarnation
 * @wall_ns: CLOCK_REALTIME of the root at @start_tsc, nanoseconds
 * @period_us: wanted beat period a layer, microseconds
 * @name: the vnode's name, NUL-terminated
 * @seed: fresh random bytes a start
 * @cmd_seq: raised by one after @cmd and @cmd_arg were written
 * @cmd: enum vn_cmd
 * @cmd_arg: its argument
 */
struct vn_root_side {
	__u64 magic;
	__u32 abi;
	__u32 size;
	__u32 vnode_id;
	__u32 incarnation;
	__u64 region_base;
	__u64 region_size;
	__u32 slot_base;
	__u32 slot_size;
	__u32 ncpus;
	__u32 flags;
	__u32 apicid[VN_MAX_CPUS];
	__u32 root_apicid;
	__u32 root_vector;
	__u64 tsc_khz;
	__u64 start_tsc;
	__u64 wall_ns;
	__u32 period_us[4];
	char  name[VN_NAME_LEN];
	__u8  seed[32];
	__u32 cmd_seq;
	__u32 cmd;
	__u64 cmd_arg;
};

/**
 * enum vn_state - as the vnode itself says (the root draws its own conclusion)
 * @VN_S_NONE: no agent has spoken yet
 * @VN_S_AGENT: agent loaded, no user beat yet
 * @VN_S_RUNNING: the first user beat has come
 * @VN_S_CRASHED: a crash record is (being) written
 * @VN_S_HALTED: the kernel halted or powered off in an orderly way
 * @VN_S_REBOOT: the kernel asked for a reboot; the agent parked it instead
 * @VN_S_KEXEC: the kernel is leaving by kexec
 */
enum vn_state {
	VN_S_NONE, VN_S_AGENT, VN_S_RUNNING, VN_S_CRASHED, VN_S_HALTED,
	VN_S_REBOOT, VN_S_KEXEC,
};

/**
 * struct vn_vnode_side - what the vnode's agent says of itself (writer: agent)
 * @abi: VN_ABI_VERSION, written last while loading
 * @incarnation: echo of vn_root_side.incarnation; other values are stale
 * @state: enum vn_state
 * @ncpus: CPUs online
 * @vector: vector of the portal to this vnode, 0 = none
 * @apicid: its destination
 * @vmcoreinfo_pa: physical address of the VMCOREINFO ELF note, 0 = unknown
 * @vmcoreinfo_size: its length, bytes
 * @phys_base: as in the kernel: physical = virtual - __START_KERNEL_map + it
 * @agent_tsc: TSC when the agent was ready
 * @user_tsc: TSC of the first user beat
 * @rings: doorbells rung at the root so far
 * @rung: doorbells received from the root so far
 * @cmd_done: vn_root_side.cmd_seq of the last command taken
 * @cmd_result: 0 or a positive errno
 * @hz: CONFIG_HZ
 * @console: 1 when the console ring is served
 * @release: utsname release, NUL-terminated
 * @grants_done: vn_grants.seq of the table it goes by
 */
struct vn_vnode_side {
	__u32 abi;
	__u32 incarnation;
	__u32 state;
	__u32 ncpus;
	__u32 vector;
	__u32 apicid;
	__u64 vmcoreinfo_pa;
	__u64 vmcoreinfo_size;
	__u64 phys_base;
	__u64 agent_tsc;
	__u64 user_tsc;
	__u32 rings;
	__u32 rung;
	__u32 cmd_done;
	__u32 cmd_result;
	__u32 hz;
	__u32 console;
	char  release[64];
	__u32 grants_done;
	__u32 reserved;
};

/**
 * struct vn_beat - heartbeats of one CPU (writer: agent, on that CPU)
 * @count: beats so far, a layer
 * @tsc: TSC of the last one, a layer
 */
struct vn_beat {
	__u64 count[4];
	__u64 tsc[4];
	__u64 reserved[8];
};

/* Validity bits of vn_frame.flags */
#define VN_FRAME_GP		(1 << 0)	/* r15..ss */
#define VN_FRAME_CONTROL	(1 << 1)	/* bases, cr*, efer, tables */
#define VN_FRAME_USER		(1 << 2)	/* the CPU was in user mode */
#define VN_FRAME_CRASHED	(1 << 3)	/* this CPU reported the crash */

/**
 * struct vn_frame - registers of one CPU (writer: agent, on that CPU)
 * @seq: sequence counter, odd while written
 * @flags: VN_FRAME_*
 * @tsc: when they were taken
 * @regs: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax
 *	rip cs eflags rsp ss fs_base gs_base ds es fs gs, the order of
 *	struct user_regs_struct (arch/x86/include/asm/user_64.h)
 * @kernel_gs_base: MSR_KERNEL_GS_BASE
 * @cr0: control register; also @cr2 @cr3 @cr4
 * @efer: MSR_EFER
 * @gdt_base: and @gdt_limit
 * @idt_base: and @idt_limit
 * @tr: task register selector
 * @ldt: LDT selector
 * @current_task: address of the task_struct, 0 = unknown
 */
struct vn_frame {
	__u32 seq;
	__u32 flags;
	__u64 tsc;
	__u64 regs[27];
	__u64 kernel_gs_base;
	__u64 cr0;
	__u64 cr2;
	__u64 cr3;
	__u64 cr4;
	__u64 efer;
	__u64 gdt_base;
	__u64 idt_base;
	__u32 gdt_limit;
	__u32 idt_limit;
	__u32 tr;
	__u32 ldt;
	__u64 current_task;
	__u64 reserved[21];
};

/**
 * enum vn_reason - why a crash record was written
 * @VN_R_NONE: none
 * @VN_R_PANIC: panic() with no oops before it
 * @VN_R_OOPS: an oops (die notifier), then panic
 * @VN_R_MCE: machine check
 */
enum vn_reason { VN_R_NONE, VN_R_PANIC, VN_R_OOPS, VN_R_MCE };

/* vn_crash.state */
#define VN_CRASH_EMPTY		0
#define VN_CRASH_WRITING	1
#define VN_CRASH_DONE		2

/**
 * struct vn_crash - the crash record (writer: agent, from the panic path)
 * @state: VN_CRASH_*; the portal rings once at WRITING and once at DONE
 * @reason: enum vn_reason
 * @cpu: Linux CPU number (within the vnode) that reported
 * @incarnation: of the kernel that wrote it
 * @tsc: TSC at the first sign of the fault
 * @done_tsc: TSC when the record was complete
 * @cpus_saved: bitmap of valid entries at VN_BR_CRASH_REGS
 * @pid: of the current task
 * @kmsg_len: valid bytes at VN_BR_KMSG
 * @trapnr: exception number of an oops, else -1
 * @error_code: of that exception
 * @comm: name of the current task
 * @message: the panic message, or the oops's one
 */
struct vn_crash {
	__u32 state;
	__u32 reason;
	__u32 cpu;
	__u32 incarnation;
	__u64 tsc;
	__u64 done_tsc;
	__u64 cpus_saved;
	__u32 pid;
	__u32 kmsg_len;
	__s32 trapnr;
	__u32 reserved;
	__u64 error_code;
	char  comm[16];
	char  message[256];
};

/* vn_debug.request */
#define VN_DBG_RUN		0
#define VN_DBG_PARK		1	/* save registers, wait in the NMI handler */

/* vn_debug.flags: what a parked CPU takes over when it is let run */
#define VN_DBG_F_REGS		(1 << 0)	/* registers from VN_BR_DEBUG_REGS */
#define VN_DBG_F_STEP		(1 << 1)	/* a trap after one instruction is wanted */
#define VN_DBG_F_HW		(1 << 2)	/* debug registers from @dr and @dr7 */
/* with VN_DBG_F_STEP */
#define VN_DBG_F_MASK		(1 << 3)	/* no interrupts during it */
#define VN_DBG_F_PUSHF		(1 << 4)	/* the instruction pushes the flags */
#define VN_DBG_F_CLI		(1 << 5)	/* it forbids interrupts */

/* vn_debug.state */
#define VN_DBG_RUNNING		0
#define VN_DBG_PARKED		1

/**
 * enum vn_cause - why a CPU parked
 * @VN_C_NONE: it never did
 * @VN_C_ASKED: VN_DBG_PARK
 * @VN_C_BREAK: it ran into a breakpoint of vn_control
 * @VN_C_DEBUG: debug exception: a step's end, or vn_debug.dr6 says which
 */
enum vn_cause { VN_C_NONE, VN_C_ASKED, VN_C_BREAK, VN_C_DEBUG };

/**
 * struct vn_debug - debug mailbox of one CPU
 * @nmi: (root) set to 1 before a portal NMI is sent; the agent takes it back
 *	to 0, and so tells its own NMIs from foreign ones
 * @request: (controller) VN_DBG_*
 * @seq: (controller) raised by one with each request
 * @save_seq: (root) raised by one: save the registers and go on; a parked CPU
 *	only says that they are saved
 * @flags: (controller) VN_DBG_F_*, valid with VN_DBG_RUN
 * @reserved0: 0
 * @dr: (controller) addresses for DR0..DR3
 * @dr7: (controller) the slots used in it, in DR7's layout
 * @state: (agent) VN_DBG_RUNNING or VN_DBG_PARKED
 * @done: (agent) @seq of the last request fulfilled: the frame at
 *	VN_BR_DEBUG_REGS is of that request
 * @saved: (agent) @save_seq of the last save
 * @cause: (agent) enum vn_cause of the last stop
 * @stops: (agent) raised by one each time the CPU parks
 * @watches: (agent) 1 when it hears of hits of @dr
 * @dr6: (agent) DR6 at the last stop with VN_C_DEBUG
 * @stop_tsc: (agent) when it parked
 */
struct vn_debug {
	__u32 nmi;
	__u32 request;
	__u32 seq;
	__u32 save_seq;
	__u32 flags;
	__u32 reserved0;
	__u64 dr[4];
	__u64 dr7;
	__u32 state;
	__u32 done;
	__u32 saved;
	__u32 cause;
	__u32 stops;
	__u32 watches;
	__u64 dr6;
	__u64 stop_tsc;
	__u64 reserved[19];
};

#define VN_MAX_BREAKPOINTS	128

/**
 * struct vn_control - a debugger's hold on the vnode (writer: kmb.ko)
 * @until_tsc: parked CPUs wait, and traps are the debugger's, until then;
 *	0 = nobody controls this vnode
 * @nbreaks: entries of @breakpoint to look at
 * @reserved: 0
 * @entry_start: code in which the page tables or the GS base may be those of
 *	user space: no CPU parks there, it is stepped out of it
 * @entry_end: its end
 * @die_chain: the kernel's chain of exception notifiers, 0 = unknown; its own
 *	users of debug registers come first there and would keep ours from us
 * @breakpoint: kernel addresses whose first byte was replaced by INT3, 0 = free
 */
struct vn_control {
	__u64 until_tsc;
	__u32 nbreaks;
	__u32 reserved;
	__u64 entry_start;
	__u64 entry_end;
	__u64 die_chain;
	__u64 breakpoint[VN_MAX_BREAKPOINTS];
};

/**
 * struct vn_ring - a byte ring; the bytes follow
 * @size: bytes, a power of two (writer: root, at the start)
 * @head: bytes ever written, modulo 2^32 (writer: the producer)
 * @tail: bytes ever read, modulo 2^32 (writer: the consumer).  The console
 *	output ring has many readers and no consumer: it overwrites, and
 *	readers keep their own position
 */
struct vn_ring {
	__u32 size;
	__u32 reserved0[15];
	__u32 head;
	__u32 reserved1[15];
	__u32 tail;
	__u32 reserved2[15];
};

/**
 * enum vn_cmd - commands by vn_root_side.cmd, taken when the portal rings
 * @VN_CMD_NONE: nothing
 * @VN_CMD_PING: only raises cmd_done
 * @VN_CMD_INJECT: a fault of kind enum vn_inject in cmd_arg
 * @VN_CMD_HALT: an orderly halt
 * @VN_CMD_REBOOT: an orderly reboot
 * @VN_CMD_SYSRQ: the sysrq key in cmd_arg
 * @VN_CMD_FREEZE: freeze and park, to be resumed (struct vn_warm)
 */
enum vn_cmd {
	VN_CMD_NONE, VN_CMD_PING, VN_CMD_INJECT, VN_CMD_HALT, VN_CMD_REBOOT,
	VN_CMD_SYSRQ, VN_CMD_FREEZE,
};

/**
 * enum vn_warm_state - how far the vnode is with being frozen
 * @VN_W_NONE: its user space has not said that it is ready
 * @VN_W_READY: it has; it may be frozen
 * @VN_W_FREEZING: on its way
 * @VN_W_FROZEN: parked, interrupts off: its memory may be kept
 * @VN_W_REFUSED: it could not be frozen and goes on
 * @VN_W_RESUMED: it runs again, as the incarnation the root wrote
 */
enum vn_warm_state {
	VN_W_NONE, VN_W_READY, VN_W_FREEZING, VN_W_FROZEN, VN_W_REFUSED,
	VN_W_RESUMED,
};

/**
 * struct vn_warm - at VN_BR_WARM (writer: agent)
 * @state: enum vn_warm_state
 * @error: of VN_W_REFUSED, a positive errno
 * @resume_cr3: page tables that map the low 2 MiB identically and the kernel;
 *	in the slot
 * @resume_entry: kernel address to jump to on them
 * @resume_cr4: CR4 on the way there: PAE, and LA57 where the kernel has it
 * @free_pages: bits set at VN_BR_FREE_PAGES: pages whose content nobody needs
 * @begun_tsc: freezing began
 * @frozen_tsc: parked
 * @entry_tsc: back in C
 * @cpu_tsc: state of the CPU restored
 * @devices_tsc: devices back, tasks still frozen
 * @thawed_tsc: tasks run
 * @reason: why it could not be frozen, NUL-terminated
 */
struct vn_warm {
	__u32 state;
	__u32 error;
	__u64 resume_cr3;
	__u64 resume_entry;
	__u64 resume_cr4;
	__u64 free_pages;
	__u64 begun_tsc;
	__u64 frozen_tsc;
	__u64 entry_tsc;
	__u64 cpu_tsc;
	__u64 devices_tsc;
	__u64 thawed_tsc;
	char  reason[128];
};

/**
 * enum vn_inject - faults for trying things out
 * @VN_I_PANIC: panic(); bits 8..15 of cmd_arg: the CPU (within the vnode)
 * @VN_I_OOPS: NULL dereference in a kernel thread
 * @VN_I_HANG: user space stops while the kernel goes on
 * @VN_I_SOFTLOCKUP: every CPU spins with preemption off, interrupts on
 * @VN_I_IRQHANG: every CPU spins with interrupts off
 * @VN_I_HALT: kernel_halt()
 * @VN_I_REBOOT: emergency_restart(), the path without notifiers
 * @VN_I_STUCK: a kernel thread that never freezes; the vnode goes on
 */
enum vn_inject {
	VN_I_PANIC = 1, VN_I_OOPS, VN_I_HANG, VN_I_SOFTLOCKUP, VN_I_IRQHANG,
	VN_I_HALT, VN_I_REBOOT, VN_I_STUCK,
};

/* --- 3. The root bridge: VN_ROOT_SIZE bytes at vn_root_info.root_pa --- */

#define VN_ROOT_MAGIC		0x544f4f5244564e56ULL	/* "VNVDROOT" */
#define VN_ROOT_SIZE		0x200000
#define VN_ROOT_TABLE		0x1000	/* struct vn_status [VN_MAX_VNODES] */
#define VN_ROOT_SHADOW		0x100000 /* the same, each entry written before its other copy */
#define VN_ROOT_LAST		0x80000	/* struct vn_last */
#define VN_ROOT_LAST_REGS	0x81000	/* struct vn_frame: of the CPU that panicked */

/**
 * struct vn_root_head - at offset 0 of the root bridge (writer: the daemon)
 * @magic: VN_ROOT_MAGIC
 * @abi: VN_ABI_VERSION
 * @pid: of the daemon
 * @beat: its watch ticks
 * @beat_tsc: TSC of the last one
 * @start_tsc: TSC when the daemon started
 * @tsc_khz: TSC frequency
 * @late_ticks: ticks that came late by more than a period
 * @period_us: watch period
 * @epoch: raised by each daemon that takes the machine over
 */
struct vn_root_head {
	__u64 magic;
	__u32 abi;
	__u32 pid;
	__u64 beat;
	__u64 beat_tsc;
	__u64 start_tsc;
	__u64 tsc_khz;
	__u64 late_ticks;
	__u32 period_us;
	__u32 epoch;
};

/**
 * enum vn_status_state - the root's own word on a vnode, in vn_status.state
 */
enum vn_status_state {
	VN_ST_OFFLINE, VN_ST_LOADING, VN_ST_BOOTING, VN_ST_RUNNING,
	VN_ST_SUSPECT, VN_ST_CRASHED, VN_ST_FENCED, VN_ST_RESTARTING,
	VN_ST_HALTED, VN_ST_STOPPED, VN_ST_QUARANTINED, VN_ST_HELD,
};

/**
 * enum vn_way - how a vnode was brought up
 * @VN_WAY_COLD: booted
 * @VN_WAY_WARM: its image was copied back and resumed
 * @VN_WAY_STANDBY: resumed in the region where its image stood by
 */
enum vn_way { VN_WAY_COLD, VN_WAY_WARM, VN_WAY_STANDBY };

#define VN_NEVER		0xffffffffu

/**
 * struct vn_status - what the daemon says of a vnode (writer: the daemon)
 * @seq: sequence counter, odd while written
 * @id: vnode id, 0 = entry unused
 * @state: enum vn_status_state
 * @incarnation: current one
 * @since_tsc: when @state was entered
 * @region_base: current region, 0 = none
 * @region_size: bytes
 * @slot_base: low slot
 * @slot_size: bytes
 * @ncpus: number of CPUs
 * @restarts: since the daemon's state was created
 * @incidents: recorded, all
 * @last_incident: its number, 0 = none
 * @name: as configured
 * @reason: words for the state, e.g. "panic", "irqhang"
 * @cpu: Linux CPU numbers in the root
 * @apicid: their APIC ids
 * @limit_us: limit a layer
 * @grants: bitmap of the vnodes that this one may look at (struct vn_grants)
 * @controls: bitmap of those that it may also control
 * @way: enum vn_way, how it was brought up last
 * @restarts_left: by itself before quarantine, VN_NEVER when its policy restarts it never
 * @image_tsc: when the image of its region was frozen, 0 = there is none
 * @standby_tsc: when that of its standby region was, 0 = none stands by
 */
struct vn_status {
	__u32 seq;
	__u32 id;
	__u32 state;
	__u32 incarnation;
	__u64 since_tsc;
	__u64 region_base;
	__u64 region_size;
	__u32 slot_base;
	__u32 slot_size;
	__u32 ncpus;
	__u32 restarts;
	__u32 incidents;
	__u32 last_incident;
	char  name[VN_NAME_LEN];
	char  reason[32];
	__u32 cpu[VN_MAX_CPUS];
	__u32 apicid[VN_MAX_CPUS];
	__u32 limit_us[4];
	__u32 grants;
	__u32 controls;
	__u32 way;
	__u32 restarts_left;
	__u64 image_tsc;
	__u64 standby_tsc;
	__u64 reserved[20];
};

#define VN_LAST_MAGIC		0x5453414c44564e56ULL	/* "VNVDLAST" */
#define VN_LAST_RANGES		16
#define VN_LAST_PERIOD_MS	100

/**
 * enum vn_last_state - how the root's kernel is, as it says itself
 * @VN_L_ALIVE: it runs while vn_last.beat grows
 * @VN_L_PANIC: it called panic(); nothing runs there any more
 * @VN_L_HALTED: it was shut down in order, or kmb.ko was unloaded
 */
enum vn_last_state { VN_L_ALIVE, VN_L_PANIC, VN_L_HALTED };

/**
 * struct vn_last - the root kernel's signs of life and its last word (writer: kmb.ko)
 * @magic: VN_LAST_MAGIC, written last
 * @abi: VN_ABI_VERSION
 * @state: enum vn_last_state, written after what belongs to it
 * @beat: raised by one every VN_LAST_PERIOD_MS, by a timer of the kernel
 * @beat_tsc: TSC of the last one
 * @tsc: TSC when @state was left for another
 * @vmcoreinfo_pa: physical address of the root kernel's VMCOREINFO note
 * @vmcoreinfo_size: bytes
 * @successor: the vnode that watches the root (KMB_SUCCESSOR), 0 = none
 * @nranges: valid entries of @range
 * @cpu: that panicked
 * @pid: of the task there
 * @comm: its name
 * @message: the panic message
 * @release: utsname release
 * @range: the root's RAM when the successor was named, {base, size} in bytes
 */
struct vn_last {
	__u64 magic;
	__u32 abi;
	__u32 state;
	__u64 beat;
	__u64 beat_tsc;
	__u64 tsc;
	__u64 vmcoreinfo_pa;
	__u64 vmcoreinfo_size;
	__u32 successor;
	__u32 nranges;
	__u32 cpu;
	__u32 pid;
	char  comm[16];
	char  message[256];
	char  release[64];
	struct { __u64 base, size; } range[VN_LAST_RANGES];
};

/* --- 4. /dev/kmb --- */

#define KMB_MAX_RANGES		16
#define KMB_IOC			0xb5

/**
 * struct vn_root_info - KMB_INFO
 * @abi: VN_ABI_VERSION
 * @x2apic: 1 in x2APIC mode
 * @tsc_khz: TSC frequency
 * @tsc: now
 * @boot_apicid: APIC id of the machine's boot CPU (MADT of the vnodes)
 * @nranges: valid entries of @range
 * @low_base: memory for low slots
 * @low_size: bytes
 * @root_pa: physical address of the root bridge, taken off the first range
 * @owner_pid: of the process that claimed the device, 0 = nobody
 * @ncpus: CPUs given to vnodes
 * @range: memory given to vnodes, {base, size} in bytes
 */
struct vn_root_info {
	__u32 abi;
	__u32 x2apic;
	__u64 tsc_khz;
	__u64 tsc;
	__u32 boot_apicid;
	__u32 nranges;
	__u64 low_base;
	__u64 low_size;
	__u64 root_pa;
	__u32 owner_pid;
	__u32 ncpus;
	struct { __u64 base, size; } range[KMB_MAX_RANGES];
};

/* kmb_cpu.state */
#define KMB_CPU_IDLE		0	/* given to vnodes, bound to none */
#define KMB_CPU_PARKED		1	/* bound, in wait-for-SIPI, confirmed */
#define KMB_CPU_STARTED		2	/* bound, running the vnode */
#define KMB_CPU_LOST		3	/* did not confirm its parking */

/**
 * struct kmb_cpu - one of the CPUs given to vnodes
 * @cpu: Linux CPU number in the root
 * @apicid: local APIC id
 * @state: KMB_CPU_*
 * @vnode: bound to, 0 = none
 */
struct kmb_cpu {
	__u32 cpu;
	__u32 apicid;
	__u32 state;
	__u32 vnode;
};

/**
 * struct kmb_cpus - KMB_CPUS: fills @cpu, sets @n
 */
struct kmb_cpus {
	__u32 n;
	__u32 reserved;
	struct kmb_cpu cpu[64];
};

/**
 * struct kmb_bind - KMB_BIND, KMB_QUERY: a vnode and what it owns
 * @vnode: (in) 1..31
 * @ncpus: (in) CPUs
 * @cpu: (in) Linux CPU numbers in the root, the vnode's boot CPU first
 * @region_base: (in) inside a granted range, VN_REGION_ALIGN aligned
 * @region_size: (in)
 * @slot_base: (in) inside the low memory, 4 KiB aligned
 * @slot_size: (in) at least VN_SLOT_SIZE
 * @vector: (out) root vector of this vnode's portal
 * @dest_apicid: (out) and its destination
 * @started: (out) number of CPUs in KMB_CPU_STARTED
 * @rings: (out) rings so far
 * @start_tsc: (out) TSC of the last KMB_START of the boot CPU
 * @holder: (out) process that controls the vnode (KMB_CONTROL), 0 = none
 * @reserved: 0
 * @held_until: (out) TSC until which it does; when none does, at which the last
 *	one ended, 0 = there was none
 *
 * KMB_BIND of a bound vnode moves it (same CPUs, another region or slot) and
 * needs all its CPUs parked; it keeps the vector.
 */
struct kmb_bind {
	__u32 vnode;
	__u32 ncpus;
	__u32 cpu[VN_MAX_CPUS];
	__u64 region_base;
	__u64 region_size;
	__u32 slot_base;
	__u32 slot_size;
	__u32 vector;
	__u32 dest_apicid;
	__u32 started;
	__u32 rings;
	__u64 start_tsc;
	__u32 holder;
	__u32 reserved;
	__u64 held_until;
};

#define KMB_START_WAIT_MAX_US	1000000

/**
 * struct kmb_start - KMB_START: boots the vnode's first CPU
 * @vnode: bound, all its CPUs parked
 * @wait_us: for the CPU to be in long mode, ..KMB_START_WAIT_MAX_US; -ETIMEDOUT then,
 *	and the CPU is lost: park it anew.  0: as long as it takes, parked and tried
 *	some times
 * @cr3: physical address of the page tables, in the slot, below 4 GiB
 * @entry: where to jump in long mode, in the region
 * @rsi: its argument (boot_params), in the region
 * @tsc: (out) TSC before the SIPI
 */
struct kmb_start {
	__u32 vnode;
	__u32 wait_us;
	__u64 cr3;
	__u64 entry;
	__u64 rsi;
	__u64 tsc;
};

/**
 * struct kmb_resume - KMB_RESUME: sets a frozen vnode's first CPU going
 * @vnode: bound, all its CPUs parked
 * @wait_us: as in struct kmb_start
 * @cr3: physical address of its page tables, in the slot
 * @entry: kernel address to jump to
 * @cr4: PAE, or PAE and LA57
 * @tsc: (out) TSC before the SIPI
 */
struct kmb_resume {
	__u32 vnode;
	__u32 wait_us;
	__u64 cr3;
	__u64 entry;
	__u64 cr4;
	__u64 tsc;
};

/**
 * struct kmb_park - KMB_PARK: INIT to each CPU of a vnode, until each confirms
 * @vnode: bound
 * @timeout_ms: for the confirmation, 1..1000
 * @parked: (out) number of CPUs that confirmed
 * @reserved: 0
 * @tsc: (out) TSC when the last one had confirmed
 *
 * A CPU confirms by running the park half of the trampoline in the vnode's
 * slot; it is then put back to wait-for-SIPI.  -ETIMEDOUT when one does not.
 */
struct kmb_park {
	__u32 vnode;
	__u32 timeout_ms;
	__u32 parked;
	__u32 reserved;
	__u64 tsc;
};

/**
 * struct kmb_ipi - KMB_NMI, KMB_IPI: to one CPU of a vnode
 * @vnode: bound
 * @cpu: index within the vnode, 0 = its boot CPU
 * @vector: KMB_IPI: 0x20..0xff; KMB_NMI: 0
 * @reserved: 0
 */
struct kmb_ipi {
	__u32 vnode;
	__u32 cpu;
	__u32 vector;
	__u32 reserved;
};

/**
 * struct kmb_range - KMB_CLEAR: fills granted memory of no running vnode with 0
 * @base: physical address, 4 KiB aligned
 * @size: bytes, 4 KiB aligned
 */
struct kmb_range {
	__u64 base;
	__u64 size;
};

/**
 * struct kmb_span - pages of KMB_PUT_BACK
 * @to: offset in the region
 * @source: offset in the image
 * @size: bytes; all three 4 KiB aligned
 */
struct kmb_span {
	__u64 to;
	__u64 source;
	__u64 size;
};

#define KMB_MAX_SPANS		0x40000

/**
 * struct kmb_put_back - KMB_PUT_BACK: pages of an image into the region they were taken from
 * @to_base: granted memory of no running vnode, 4 KiB aligned
 * @to_size: bytes
 * @from_base: granted memory apart from that, 4 KiB aligned
 * @from_size: bytes
 * @spans: user address of an array of struct kmb_span
 * @nspans: 1..KMB_MAX_SPANS
 * @reserved: 0
 * @written: (in) 0, (out) pages that were not the same already and were written
 *
 * Not atomic: after an error some pages are written and some are not.
 */
struct kmb_put_back {
	__u64 to_base;
	__u64 to_size;
	__u64 from_base;
	__u64 from_size;
	__u64 spans;
	__u32 nspans;
	__u32 reserved;
	__u64 written;
};

#define KMB_LEASE_MAX_MS	60000
#define KMB_LEASE_RENEW		0x80000000	/* with lease_ms: -ETIME when it is over */

/**
 * struct kmb_control - KMB_CONTROL: takes, renews or gives back control
 * @vnode: bound and started
 * @lease_ms: control lasts that long unless it is renewed, 1..60000; 0 = give
 *	it back.  With KMB_LEASE_RENEW it is renewed only: who lost control must
 *	know, for the CPUs have run, and the facts below are not said again
 * @holder: (out) process that has control now, also with -EBUSY
 * @reserved: 0
 * @until_tsc: (out) TSC until which it has
 * @entry_start: for vn_control.entry_start
 * @entry_end: for vn_control.entry_end
 * @die_chain: for vn_control.die_chain
 *
 * Control belongs to an open file.  It ends with the lease, with the file's
 * last descriptor, and when the vnode is parked.  Then every breakpoint is
 * taken out of memory, and the CPUs that wait run on.
 */
struct kmb_control {
	__u32 vnode;
	__u32 lease_ms;
	__u32 holder;
	__u32 reserved;
	__u64 until_tsc;
	__u64 entry_start;
	__u64 entry_end;
	__u64 die_chain;
};

#define KMB_POKE_MAX		0x10000

/**
 * struct kmb_poke - KMB_POKE: writes into the memory of a vnode one controls
 * @vnode: controlled by this file
 * @size: bytes, 1..KMB_POKE_MAX
 * @pa: physical address, in the vnode's region or slot
 * @data: user address of the bytes
 */
struct kmb_poke {
	__u32 vnode;
	__u32 size;
	__u64 pa;
	__u64 data;
};

/**
 * struct kmb_break - KMB_BREAK: sets or takes away a breakpoint
 * @vnode: controlled by this file
 * @set: 1 = set, 0 = take away
 * @va: kernel address, known to the agent by it
 * @pa: where that byte is, in the vnode's region
 *
 * The byte that was there is kept by kmb.ko, which puts it back when control
 * ends.
 */
struct kmb_break {
	__u32 vnode;
	__u32 set;
	__u64 va;
	__u64 pa;
};

#define KMB_ARM_PIECES		8
#define KMB_ARM_HELD_MAX	0x20000000	/* bytes of a vnode's pieces that kmb.ko keeps */
#define KMB_FIRE_SILENCE_MAX	3600000		/* ms */
#define KMB_FIRE_BRIDGE		(VN_BR_KMSG + VN_KMSG_SIZE)

/**
 * struct kmb_piece - part of the vnode that a fire starts
 * @pa: where it lies when the vnode is started
 * @size: bytes
 * @data: user address of the bytes, which kmb.ko then keeps and puts there; 0 =
 *	they are there already
 * @sha256: of the bytes; nothing is done to the vnode unless all pieces agree
 */
struct kmb_piece {
	__u64 pa;
	__u64 size;
	__u64 data;
	__u8  sha256[32];
};

/**
 * struct kmb_arm - KMB_ARM: what to start by itself when the daemon is silent
 * @vnode: bound and started
 * @npieces: valid entries of @piece
 * @incarnation: that runs, and is watched
 * @successor: incarnation of what is started
 * @silence_ms: no watch tick of a daemon (vn_root_head.beat) for so long,
 *	1..KMB_FIRE_SILENCE_MAX
 * @limit_ms: silence of a layer of a CPU that has beaten before and is a failure
 *	then, 0 = its silence is none.  Layers as in enum vn_layer
 * @cookie: the daemon's own, KMB_FIRE tells it
 * @region_base: where it is started: the vnode's own region, which no piece is
 *	in yet, or another one, which is the vnode's afterwards
 * @region_size: bytes
 * @cr3: as in struct kmb_start; so are @entry and @rsi
 * @entry: in the region
 * @rsi: in the region
 * @piece: a bridge at VN_OFF_BRIDGE of the region is among them; its start_tsc
 *	and wall_ns are written at the fire
 *
 * Takes the place of what was armed before.  It fires once at most, and only
 * while nobody owns the machine.  It ends when the vnode is parked, moved or
 * unbound, and when the region is given to another vnode or cleared.
 * -EBUSY while a fire of the vnode waits for KMB_SETTLE.
 */
struct kmb_arm {
	__u32 vnode;
	__u32 npieces;
	__u32 incarnation;
	__u32 successor;
	__u32 silence_ms;
	__u32 limit_ms[3];
	__u64 cookie;
	__u64 region_base;
	__u64 region_size;
	__u64 cr3;
	__u64 entry;
	__u64 rsi;
	struct kmb_piece piece[KMB_ARM_PIECES];
};

/**
 * enum kmb_fire_state - how far a vnode's fire is
 * @KMB_F_NONE: not armed
 * @KMB_F_ARMED: armed
 * @KMB_F_FIRED: it was restarted
 * @KMB_F_REFUSED: a piece had not its digest, or the region was taken: the vnode
 *	was not touched
 * @KMB_F_FAILED: its CPUs did not park, or did not start
 */
enum kmb_fire_state {
	KMB_F_NONE, KMB_F_ARMED, KMB_F_FIRED, KMB_F_REFUSED, KMB_F_FAILED,
};

/**
 * enum kmb_fire_cause - why it fired
 * @KMB_C_NONE: it did not
 * @KMB_C_RECORD: a crash record
 * @KMB_C_IRQ: silence of a layer: VN_LAYER_IRQ
 * @KMB_C_SCHED: VN_LAYER_SCHED
 * @KMB_C_USER: VN_LAYER_USER
 */
enum kmb_fire_cause {
	KMB_C_NONE, KMB_C_RECORD, KMB_C_IRQ, KMB_C_SCHED, KMB_C_USER,
};

/**
 * struct kmb_fire - KMB_FIRE: a vnode's arming, or what became of it
 * @vnode: (in)
 * @state: enum kmb_fire_state
 * @cause: enum kmb_fire_cause
 * @cpu: index within the vnode of the CPU that was silent
 * @incarnation: watched
 * @successor: started
 * @silence_ms: as armed
 * @error: errno of KMB_F_REFUSED and KMB_F_FAILED
 * @asked: 1 = its CPUs were asked for their registers by NMI
 * @answered: bitmap of those that saved them at VN_BR_DEBUG_REGS
 * @cookie: as armed
 * @old_base: region that it left; the same as @region_base: nothing is left there
 * @old_size: bytes
 * @region_base: region in which it was, or will be, started
 * @region_size: bytes
 * @wall_ns: CLOCK_REALTIME at @seen_tsc
 * @daemon_tsc: last watch tick of a daemon
 * @fault_tsc: begin of the silence; of a crash record, when it was first seen
 * @seen_tsc: believed
 * @fenced_tsc: all CPUs parked
 * @captured_tsc: what the successor overwrites was kept
 * @loaded_tsc: the successor is in its region
 * @started_tsc: before its first SIPI
 * @data: (in) user address for what was kept, 0 = not wanted
 * @size: (in) room there, (out) bytes kept: KMB_FIRE_BRIDGE bytes of the
 *	predecessor's bridge, then the RAM of its low slot
 *
 * Stays until KMB_SETTLE, or, but for KMB_F_FIRED, the next KMB_ARM.
 */
struct kmb_fire {
	__u32 vnode;
	__u32 state;
	__u32 cause;
	__u32 cpu;
	__u32 incarnation;
	__u32 successor;
	__u32 silence_ms;
	__u32 error;
	__u32 asked;
	__u32 answered;
	__u64 cookie;
	__u64 old_base;
	__u64 old_size;
	__u64 region_base;
	__u64 region_size;
	__u64 wall_ns;
	__u64 daemon_tsc;
	__u64 fault_tsc;
	__u64 seen_tsc;
	__u64 fenced_tsc;
	__u64 captured_tsc;
	__u64 loaded_tsc;
	__u64 started_tsc;
	__u64 data;
	__u64 size;
};

/**
 * struct kmb_event - read() of /dev/kmb gives as many of these as fit
 * @vnode: who rang
 * @rings: rings since this descriptor last read them
 * @tsc: TSC of the first of them
 * @last_tsc: TSC of the last of them
 */
struct kmb_event {
	__u32 vnode;
	__u32 rings;
	__u64 tsc;
	__u64 last_tsc;
};

/* Observers (O_RDONLY) may INFO, CPUS, QUERY, FIRE, poll, read and map read-only.
 * CONTROL wants O_RDWR; POKE, BREAK and NMI want control of the vnode.  All else
 * wants the owner: O_RDWR and KMB_CLAIM, one at a time, until its last descriptor
 * and mapping is gone.  Vnodes run on without an owner. */
#define KMB_INFO	_IOR(KMB_IOC, 1, struct vn_root_info)
#define KMB_CPUS	_IOR(KMB_IOC, 2, struct kmb_cpus)
#define KMB_CLAIM	_IO(KMB_IOC, 3)
#define KMB_BIND	_IOWR(KMB_IOC, 4, struct kmb_bind)
#define KMB_UNBIND	_IOW(KMB_IOC, 5, __u32)
#define KMB_QUERY	_IOWR(KMB_IOC, 6, struct kmb_bind)
#define KMB_START	_IOWR(KMB_IOC, 7, struct kmb_start)
#define KMB_PARK	_IOWR(KMB_IOC, 8, struct kmb_park)
#define KMB_NMI		_IOW(KMB_IOC, 9, struct kmb_ipi)
#define KMB_IPI		_IOW(KMB_IOC, 10, struct kmb_ipi)
#define KMB_CLEAR	_IOW(KMB_IOC, 11, struct kmb_range)
#define KMB_CONTROL	_IOWR(KMB_IOC, 12, struct kmb_control)
#define KMB_POKE	_IOW(KMB_IOC, 13, struct kmb_poke)
#define KMB_BREAK	_IOW(KMB_IOC, 14, struct kmb_break)
#define KMB_RESUME	_IOWR(KMB_IOC, 15, struct kmb_resume)
#define KMB_PUT_BACK	_IOWR(KMB_IOC, 16, struct kmb_put_back)
/* The vnode that may read the root's memory and watches it, 0 = none: while it
 * runs, a panic of the root leaves the machine as it is, whatever panic= says. */
#define KMB_SUCCESSOR	_IOW(KMB_IOC, 24, __u32)
#define KMB_ARM		_IOW(KMB_IOC, 28, struct kmb_arm)
#define KMB_DISARM	_IOW(KMB_IOC, 29, __u32)
#define KMB_FIRE	_IOWR(KMB_IOC, 30, struct kmb_fire)
#define KMB_SETTLE	_IOW(KMB_IOC, 31, __u32)	/* what fired is recorded elsewhere: forget it */

/* --- 5. /dev/vnode (in a vnode) --- */

/**
 * struct vn_self - VNODE_SELF: who am I
 * @vnode_id: id
 * @incarnation: counts the starts
 * @ncpus: CPUs configured
 * @user_period_us: wanted period of user beats
 * @name: NUL-terminated
 */
struct vn_self {
	__u32 vnode_id;
	__u32 incarnation;
	__u32 ncpus;
	__u32 user_period_us;
	char  name[VN_NAME_LEN];
};

#define VN_MAX_GRANTS		8	/* of one vnode */

/* Flags of vn_grant.flags */
#define VN_GRANT_CONTROL	(1 << 0)	/* it may also be controlled, by struct vn_ask */

/**
 * struct vn_grant - another vnode that this one may look at
 * @flags: VN_GRANT_*
 * @started: number of its CPUs that run
 * @start_tsc: TSC of its last start
 */
struct vn_grant {
	__u32 flags;
	__u32 started;
	__u64 start_tsc;
	__u64 reserved[2];
};

/**
 * struct vn_grants - at VN_BR_GRANTS, and VNODE_GRANTS (writer: root)
 * @seq: sequence counter, odd while written; the portal rings after a change
 * @n: valid entries of @grant and @status
 * @root_pa: the root bridge, for the successor: it may also read that and the
 *	RAM named in struct vn_last; 0 for all others
 * @grant: the vnodes
 * @status: what the daemon says of each, in the same order; a region of 0 bytes
 *	when it has no memory
 *
 * Only what stands here of region and slot may be mapped.  A mapping ends, and
 * shows zeros, when the grant does or when the vnode is started again or moved.
 */
struct vn_grants {
	__u32 seq;
	__u32 n;
	__u64 root_pa;
	struct vn_grant grant[VN_MAX_GRANTS];
	struct vn_status status[VN_MAX_GRANTS];
};

#define VN_ASK_DATA_MAX		0x1000

/**
 * enum vn_ask_op - what a vnode asks the root to do to one it may control
 * @VN_ASK_NONE: nothing was ever asked
 * @VN_ASK_CONTROL: KMB_CONTROL: @number is lease_ms, @address entry_start, entry_end, die_chain
 * @VN_ASK_POKE: KMB_POKE: @number bytes of VN_BR_ASK_DATA go to @address[0]
 * @VN_ASK_BREAK: KMB_BREAK: @number is set, @address va and pa
 * @VN_ASK_NMI: KMB_NMI: @number is the CPU
 */
enum vn_ask_op {
	VN_ASK_NONE = 0,
	VN_ASK_CONTROL = 1,
	VN_ASK_POKE = 2,
	VN_ASK_BREAK = 3,
	VN_ASK_NMI = 4,
};

/**
 * struct vn_ask - at VN_BR_ASK: one request at a time (writer: agent to @address, root the rest)
 * @seq: number of the request, written last; the portal rings
 * @op: enum vn_ask_op
 * @vnode: the vnode to control
 * @number: see enum vn_ask_op
 * @client: the open file of /dev/vnode-peers that asks; control is its
 * @address: see enum vn_ask_op
 * @done: number of the request that was answered, written last
 * @error: errno of the answer, 0 = done
 * @holder: of VN_ASK_CONTROL: process that has control, of the root
 * @reserved0: 0
 * @until_tsc: of VN_ASK_CONTROL: end of the lease
 * @reserved: 0
 *
 * The root keeps lease and breakpoints, so they end with the vnode that asked.
 */
struct vn_ask {
	__u32 seq;
	__u32 op;
	__u32 vnode;
	__u32 number;
	__u64 client;
	__u64 address[3];
	__u32 done;
	__u32 error;
	__u32 holder;
	__u32 reserved0;
	__u64 until_tsc;
	__u64 reserved[7];
};

#define VNODE_SELF	_IOR(KMB_IOC, 32, struct vn_self)
#define VNODE_BEAT	_IO(KMB_IOC, 33)	/* a user beat of the CPU it runs on */

/* read() of /dev/vnode gives the incarnation, a decimal number and a line feed.
 * poll() gives POLLPRI when it has changed since this file was opened or last
 * read.  write() of "ready" says that the vnode may be frozen; it returns in
 * each incarnation that is resumed from the image, at once where the root keeps
 * none, and after 30 s when the root did not ask. */

/* /dev/vnode-peers has this, and of /dev/kmb what an observer may do there:
 * KMB_INFO (its root_pa is 0 but for the successor), KMB_CPUS, KMB_QUERY and
 * read-only mappings.  Opened O_RDWR, KMB_CONTROL, KMB_POKE, KMB_BREAK and
 * KMB_NMI ask the root, which does them for vnodes granted with
 * VN_GRANT_CONTROL. */
#define VNODE_GRANTS	_IOR(KMB_IOC, 34, struct vn_grants)

#endif /* VNODE_ABI_H */
