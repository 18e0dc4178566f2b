// SPDX-License-Identifier: GPL-2.0-or-later
/* The doorbells: to the root, by its vector for this vnode; from the root. */
#include "agent.h"

#include "vn_lapic.h"

static struct vn_vector portal;
static atomic_t rings, rung;

/* In the panic path too: writes a register, waits at most 100 ms for it. */
void portal_ring(void)
{
	u32 vector = READ_ONCE(root_side->root_vector);

	if (vector < 0x20 || vector > 0xff)
		return;
	WRITE_ONCE(vnode_side->rings, atomic_inc_return(&rings));
	vn_lapic_icr(APIC_DM_FIXED | vector, READ_ONCE(root_side->root_apicid));
}

static irqreturn_t root_rang(int irq, void *data)
{
	WRITE_ONCE(vnode_side->rung, atomic_inc_return(&rung));
	command_poll();
	console_kick();
	peers_poll();
	return IRQ_HANDLED;
}

void portal_publish(void)
{
	WRITE_ONCE(vnode_side->apicid, portal.apicid);
	WRITE_ONCE(vnode_side->vector, portal.vector);
}

int portal_init(void)
{
	int rc = vn_vector_alloc(&portal, root_rang, "vnode_portal", &portal);

	if (!rc)
		portal_publish();
	return rc;
}
