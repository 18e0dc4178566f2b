// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guards the edge/level control register of the interrupt controller (ports
 * 0x4d0, 0x4d1).  A booting vnode whose ACPI tables say nothing of an IOAPIC
 * may set it, and that would turn the root's interrupt lines.
 */
#include "kmb.h"

#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/workqueue.h>

#define ELCR		0x4d0
#define LOOK_MS		250
#define LOOKS		40	/* ten seconds: a vnode has long booted */

static u8 saved[2];
static atomic_t looks;

static void look(struct work_struct *work);
static DECLARE_DELAYED_WORK(guard, look);

static void look(struct work_struct *work)
{
	u8 a = inb(ELCR), b = inb(ELCR + 1);

	if (a != saved[0] || b != saved[1]) {
		pr_warn("a vnode set ELCR to %02x%02x; back to %02x%02x\n",
			b, a, saved[1], saved[0]);
		outb(saved[0], ELCR);
		outb(saved[1], ELCR + 1);
	}
	if (atomic_dec_return(&looks) > 0)
		schedule_delayed_work(&guard, msecs_to_jiffies(LOOK_MS));
}

void kmb_elcr_init(void)
{
	saved[0] = inb(ELCR);
	saved[1] = inb(ELCR + 1);
}

void kmb_elcr_guard(void)
{
	atomic_set(&looks, LOOKS);
	schedule_delayed_work(&guard, msecs_to_jiffies(LOOK_MS));
}

void kmb_elcr_exit(void)
{
	cancel_delayed_work_sync(&guard);
}
