// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults at a point of the kernel's own work: LKDTM's crash points by kprobe,
 * and contexts of our own (a timer, a work item, a tasklet, a hard interrupt).
 */
#include "faults.h"

#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kprobes.h>
#include <linux/panic.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

static int at_point(struct kprobe *probe, struct pt_regs *regs)
{
	panic("crash point %s", probe->symbol_name);
}

static struct kprobe point = { .pre_handler = at_point };

/* The fault comes when the kernel gets there, which may be at once. */
static noinline void arm(const char *symbol)
{
	int rc;

	point.symbol_name = symbol;
	rc = register_kprobe(&point);
	if (rc)
		pr_err("vnode_faults: no probe on %s: %d\n", symbol, rc);
}

FAULT(INT_HW_IRQ_EN)
{
	arm("handle_irq_event");
	barrier();
}

FAULT(FS_SUBMIT_BH)
{
	arm("submit_bio_noacct");
	barrier();
}

FAULT(PAGE_FAULT)
{
	arm("handle_mm_fault");
	barrier();
}

FAULT(TIMERADD)
{
	arm("hrtimer_start_range_ns");
	barrier();
}

static noinline __attribute__((__noipa__)) void in_hard_interrupt(struct irq_work *unused)
{
	ROOM();
	BUG();
}

static DEFINE_IRQ_WORK(work_irq, in_hard_interrupt);

FAULT(INT_HARDWARE_ENTRY)
{
	irq_work_queue(&work_irq);
	mdelay(100);
}

static noinline __attribute__((__noipa__)) void in_tasklet(struct tasklet_struct *unused)
{
	ROOM();
	WRITE_ONCE(*(int *)hidden(16), 1);
}

static DECLARE_TASKLET(tasklet, in_tasklet);

FAULT(INT_TASKLET_ENTRY)
{
	tasklet_schedule(&tasklet);
	mdelay(100);
}

static noinline __attribute__((__noipa__)) void in_timer(struct timer_list *unused)
{
	ROOM();
	BUG();
}

static DEFINE_TIMER(timer, in_timer);

FAULT(TIMER)
{
	mod_timer(&timer, jiffies + 1);
	mdelay(100);
}

static noinline __attribute__((__noipa__)) void in_work(struct work_struct *unused)
{
	ROOM();
	WRITE_ONCE(*(int *)hidden(24), 1);
}

static DECLARE_WORK(work, in_work);

FAULT(WORKQUEUE)
{
	schedule_work(&work);
	barrier();
}

const struct fault faults_points[] = {
	ENTRY(INT_HW_IRQ_EN), ENTRY(FS_SUBMIT_BH), ENTRY(PAGE_FAULT), ENTRY(TIMERADD),
	ENTRY(INT_HARDWARE_ENTRY), ENTRY(INT_TASKLET_ENTRY), ENTRY(TIMER), ENTRY(WORKQUEUE), {}
};
