// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The debug mailbox: the root sends an NMI and says by the mailbox that it is
 * its own.  A parked CPU waits in the NMI handler and touches nothing until
 * the root lets it run.
 */
#include "agent.h"

#include <asm/nmi.h>
#include <asm/processor.h>

static void park(struct vn_debug *d)
{
	u32 seq;

	WRITE_ONCE(d->state, VN_DBG_PARKED);
	do {
		seq = READ_ONCE(d->seq);
		if (READ_ONCE(d->done) != seq)
			smp_store_release(&d->done, seq);
		cpu_relax();
	} while (READ_ONCE(d->request) == VN_DBG_PARK);
	WRITE_ONCE(d->state, VN_DBG_RUNNING);
	smp_store_release(&d->done, READ_ONCE(d->seq));
}

bool debug_nmi(struct pt_regs *regs)
{
	unsigned int cpu = raw_smp_processor_id();
	struct vn_debug *d = (struct vn_debug *)bridge_at(VN_BR_DEBUG) + cpu;
	u32 request;

	if (!READ_ONCE(d->nmi) || !xchg(&d->nmi, 0))
		return false;
	request = READ_ONCE(d->request);
	if (request == VN_DBG_RUN)
		return true;
	frame_save(frame_of(VN_BR_DEBUG_REGS, cpu), regs, 0);
	if (request == VN_DBG_PARK)
		park(d);
	else
		smp_store_release(&d->done, READ_ONCE(d->seq));
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

int debug_init(void)
{
	return register_nmi_handler(NMI_LOCAL, portal_nmi, NMI_FLAG_FIRST, "vnode_portal");
}
