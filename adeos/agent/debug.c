// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The debug mailbox: another kernel sends an NMI and says by the mailbox that
 * it is its own.  A parked CPU waits, touches nothing, and goes on when it is
 * told to, or when nobody holds control any more.
 */
#include "agent.h"

#include <linux/nmi.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <asm/nmi.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#define LONG_MS		1000	/* a stop that RCU must not complain of */
#define QUIET_MS	30000	/* how long it is kept from complaining */
#define REPEAT_MS	1000	/* within which an NMI that was sent again may come late */

/* exported, but declared in kernel/rcu/rcu.h alone */
extern int rcu_cpu_stall_suppress;

static struct vn_control *control;
static u64 quiet_until;
static DEFINE_PER_CPU(u64, last_nmi);

bool control_held(void)
{
	return READ_ONCE(control->until_tsc) > rdtsc();
}

const struct vn_control *control_area(void)
{
	return control;
}

struct vn_debug *mailbox_of(unsigned int cpu)
{
	return (struct vn_debug *)bridge_at(VN_BR_DEBUG) + cpu;
}

static u64 cycles(u32 ms)
{
	return (u64)tsc_khz * ms;
}

/* Whether it was told to run; false when control has ended. */
static bool wait_for_word(struct vn_debug *d)
{
	for (;;) {
		u32 seq = smp_load_acquire(&d->seq), save = READ_ONCE(d->save_seq);

		/* a CPU that parks inside of an NMI takes no other one */
		if (READ_ONCE(d->saved) != save)
			smp_store_release(&d->saved, save);
		if (seq != READ_ONCE(d->done)) {
			if (READ_ONCE(d->request) != VN_DBG_PARK)
				return true;
			smp_store_release(&d->done, seq);
		}
		if (!control_held())
			return false;
		cpu_relax();
	}
}

/* The kernel's own watchdogs must not take the stop for a hang. */
static void calm_watchdogs(u64 since)
{
	u64 now = rdtsc();

	touch_softlockup_watchdog();
	if (now - since < cycles(LONG_MS))
		return;
	WRITE_ONCE(quiet_until, now + cycles(QUIET_MS));
	WRITE_ONCE(rcu_cpu_stall_suppress, 1);
}

void debug_tick(void)
{
	u64 until = READ_ONCE(quiet_until);

	if (until && rdtsc() > until) {
		WRITE_ONCE(quiet_until, 0);
		WRITE_ONCE(rcu_cpu_stall_suppress, 0);
	}
	trap_tick();
}

/* Waits on the CPU it runs on; returns what of VN_DBG_F_* it is to do. */
u32 debug_park(struct pt_regs *regs, enum vn_cause cause, u64 dr6)
{
	unsigned int cpu = raw_smp_processor_id();
	struct vn_frame *f = frame_of(VN_BR_DEBUG_REGS, cpu);
	struct vn_debug *d = mailbox_of(cpu);
	u64 since = rdtsc();
	u32 flags = 0;

	frame_save(f, regs, 0);
	WRITE_ONCE(d->watches, trap_goes_first());
	WRITE_ONCE(d->cause, cause);
	WRITE_ONCE(d->dr6, dr6);
	WRITE_ONCE(d->stop_tsc, since);
	WRITE_ONCE(d->stops, READ_ONCE(d->stops) + 1);
	WRITE_ONCE(d->done, READ_ONCE(d->seq));
	smp_store_release(&d->state, VN_DBG_PARKED);
	if (cause != VN_C_ASKED)
		portal_ring();
	if (wait_for_word(d)) {
		flags = READ_ONCE(d->flags);
		if (flags & VN_DBG_F_REGS)
			frame_restore(f, regs);
	}
	calm_watchdogs(since);
	/* one that was sent again may have waited behind the NMI it parked in */
	this_cpu_write(last_nmi, rdtsc());
	WRITE_ONCE(d->state, VN_DBG_RUNNING);
	smp_store_release(&d->done, READ_ONCE(d->seq));
	return flags;
}

static bool debug_nmi(struct pt_regs *regs)
{
	unsigned int cpu = raw_smp_processor_id();
	struct vn_debug *d = mailbox_of(cpu);
	u32 save = READ_ONCE(d->save_seq);

	/* the sender repeats it when the answer is late: the second one is no stranger */
	if (!READ_ONCE(d->nmi) || !xchg(&d->nmi, 0))
		return control_held() || rdtsc() - this_cpu_read(last_nmi) < cycles(REPEAT_MS);
	this_cpu_write(last_nmi, rdtsc());
	if (READ_ONCE(d->saved) != save) {
		/* a parked CPU has saved them, and they are the debugger's now */
		if (!trap_busy())
			frame_save(frame_of(VN_BR_DEBUG_REGS, cpu), regs, 0);
		smp_store_release(&d->saved, save);
	}
	if (READ_ONCE(d->request) == VN_DBG_PARK && READ_ONCE(d->seq) != READ_ONCE(d->done))
		trap_stop(regs);
	return true;
}

static int portal_nmi(unsigned int cmd, struct pt_regs *regs)
{
	bool ours = false;

	if (!cpu_has_mailbox(raw_smp_processor_id()))
		return NMI_DONE;
	/* both may be asked for by one NMI, for they merge */
	ours |= crash_nmi(regs);
	ours |= debug_nmi(regs);
	return ours ? NMI_HANDLED : NMI_DONE;
}

/* As register_nmi_handler() would make it, but for the time it may take. */
static struct nmiaction portal_action = {
	.list = LIST_HEAD_INIT(portal_action.list),
	.handler = portal_nmi,
	.name = "vnode_portal",
	.flags = NMI_FLAG_FIRST,
	.max_duration = U64_MAX,
};

int debug_init(void)
{
	control = bridge_at(VN_BR_CONTROL);
	return __register_nmi_handler(NMI_LOCAL, &portal_action);
}
