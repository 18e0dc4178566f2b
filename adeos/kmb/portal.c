// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vnodes' doorbells: one interrupt vector a vnode, so that the vector
 * itself says who rang.  The last stamps are kept, so that each reader of
 * /dev/kmb learns when the first ring it has not seen came.
 */
#include "kmb.h"

#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <asm/tsc.h>

#include "vn_lapic.h"

#define STAMPS	64	/* power of two */

/**
 * struct portal - one vnode's doorbell; it outlives the binding
 * @lock: guards @rings and @stamp
 * @rings: rings so far, modulo 2^32
 * @stamp: TSC of ring number n at [n % STAMPS], n from 0
 * @vec: its interrupt vector
 * @name: in /proc/interrupts
 */
struct portal {
	raw_spinlock_t lock;
	u32 rings;
	u64 stamp[STAMPS];
	struct vn_vector vec;
	char name[16];
};

static struct portal portals[VN_MAX_VNODES] = {
	[0 ... VN_MAX_VNODES - 1] = {
		.lock = __RAW_SPIN_LOCK_UNLOCKED(portals.lock),
	},
};

DECLARE_WAIT_QUEUE_HEAD(kmb_portal_wait);

static void wake_readers(struct irq_work *work)
{
	wake_up_interruptible_all(&kmb_portal_wait);
}

static DEFINE_IRQ_WORK(wake_work, wake_readers);

static irqreturn_t portal_rang(int irq, void *data)
{
	struct portal *p = data;
	u64 now = rdtsc();

	raw_spin_lock(&p->lock);
	p->stamp[p->rings % STAMPS] = now;
	WRITE_ONCE(p->rings, p->rings + 1);
	raw_spin_unlock(&p->lock);
	/* a wait queue's lock may sleep there */
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		irq_work_queue(&wake_work);
	else
		wake_readers(NULL);
	return IRQ_HANDLED;
}

int kmb_portal_open(u32 vnode, u32 *vector, u32 *apicid)
{
	struct portal *p = &portals[vnode];
	int rc;

	snprintf(p->name, sizeof(p->name), "vnode%u", vnode);
	rc = vn_vector_alloc(&p->vec, portal_rang, p->name, p);
	if (rc) {
		pr_err("vnode %u: no interrupt vector: %d\n", vnode, rc);
		return rc;
	}
	*vector = p->vec.vector;
	*apicid = p->vec.apicid;
	return 0;
}

void kmb_portal_close(u32 vnode)
{
	vn_vector_free(&portals[vnode].vec, &portals[vnode]);
}

u32 kmb_portal_rings(u32 vnode)
{
	return READ_ONCE(portals[vnode].rings);
}

bool kmb_portal_pending(const u32 *seen)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++)
		if (kmb_portal_rings(i) != READ_ONCE(seen[i]))
			return true;
	return false;
}

bool kmb_portal_event(u32 vnode, u32 *seen, struct kmb_event *event)
{
	struct portal *p = &portals[vnode];
	unsigned long flags;
	u32 fresh;

	raw_spin_lock_irqsave(&p->lock, flags);
	fresh = p->rings - *seen;
	if (fresh) {
		u32 known = min_t(u32, fresh, STAMPS);

		event->vnode = vnode;
		event->rings = fresh;
		event->tsc = p->stamp[(p->rings - known) % STAMPS];
		event->last_tsc = p->stamp[(p->rings - 1) % STAMPS];
		WRITE_ONCE(*seen, p->rings);
	}
	raw_spin_unlock_irqrestore(&p->lock, flags);
	return fresh;
}

void kmb_portal_exit(void)
{
	irq_work_sync(&wake_work);
}
