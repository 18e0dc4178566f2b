// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults that say nothing: loops, deadlocks, storms, silence. */
#include "faults.h"

#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/smp.h>
#include <linux/spinlock.h>

#define FLOOD_LINES	20000

static noinline __attribute__((__noipa__)) void spin(void)
{
	while (true)
		cpu_relax();
}

FAULT(LOOP)
{
	while (true)
		cpu_relax();
}

FAULT(SOFTLOCKUP)
{
	preempt_disable();
	while (true)
		cpu_relax();
}

FAULT(HARDLOCKUP)
{
	local_irq_disable();
	while (true)
		cpu_relax();
}

static void loop_here(void *unused)
{
	spin();
}

/* Interrupts off everywhere: this CPU waits for the others, which never answer */
FAULT(HARDLOCKUP_ALL)
{
	preempt_disable();
	smp_call_function(loop_here, NULL, 0);
	local_irq_disable();
	while (true)
		cpu_relax();
}

static DEFINE_SPINLOCK(lock);

FAULT(SPINLOCKUP)
{
	spin_lock(&lock);
	spin_lock(&lock);
	barrier();
}

static DEFINE_SPINLOCK(irq_lock);

FAULT(SPINLOCKUP_IRQ)
{
	unsigned long flags;

	spin_lock_irqsave(&irq_lock, flags);
	spin_lock(&irq_lock);
	barrier();
}

FAULT(HUNG_TASK)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	barrier();
}

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static int other_order(void *unused)
{
	mutex_lock(&second);
	msleep(200);
	mutex_lock(&first);
	return 0;
}

FAULT(MUTEX_DEADLOCK)
{
	mutex_lock(&first);
	kthread_run(other_order, NULL, "faults_ba");
	msleep(400);
	mutex_lock(&second);
	barrier();
}

/* A reader that sleeps for ever: no grace period ends any more. */
FAULT(RCU_STALL)
{
	rcu_read_lock();
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	rcu_read_unlock();
}

static void again(struct irq_work *work)
{
	irq_work_queue(work);
}

static DEFINE_IRQ_WORK(storm, again);

/* An interrupt that sends itself: it is pending again before any other gets in. */
FAULT(IRQ_STORM)
{
	irq_work_queue(&storm);
	barrier();
}

static void masked(struct tasklet_struct *t)
{
	tasklet_schedule(t);
	mdelay(20);
}

static DECLARE_TASKLET(forever, masked);

/* A tasklet that schedules itself: softirqs for ever, in ksoftirqd once it is awake */
FAULT(SOFTIRQ_STORM)
{
	tasklet_schedule(&forever);
	barrier();
}

/* The local APIC's timer is masked (LVT timer, offset 0x320, bit 16) and its count cleared. */
static void mask_timer(void *base)
{
	volatile u32 *apic = base;

	apic[0x320 / 4] |= 1 << 16;
	apic[0x380 / 4] = 0;
}

FAULT(TIMER_LOSS)
{
	void __iomem *base = ioremap(0xfee00000, 0x1000);

	on_each_cpu(mask_timer, (void __force *)base, 1);
	barrier();
}

/* The agent's thread leaves; its timer goes on. */
FAULT(AGENT_THREAD_STOPPED)
{
	struct task_struct *p, *found = NULL;

	rcu_read_lock();
	for_each_process(p)
		if (!strncmp(p->comm, "vnode_beat/", 11))
			found = p;
	if (found)
		get_task_struct(found);
	rcu_read_unlock();
	if (found)
		kthread_stop(found);
}

/* All of user space stops, this task last; the kernel is well. */
FAULT(USER_DEAD)
{
	struct task_struct *p;

	rcu_read_lock();
	for_each_process(p)
		if (!(p->flags & PF_KTHREAD))
			send_sig(SIGSTOP, p, 1);
	rcu_read_unlock();
}

FAULT(PRINTK_FLOOD)
{
	int i;

	for (i = 0; i < FLOOD_LINES; i++) {
		pr_emerg("flood %d \x1b[2J\x07 ABCDEFGHIJKLMNOPQRSTUVWXYZ\n", i);
		cond_resched();
	}
}

const struct fault faults_hang[] = {
	ENTRY(LOOP), ENTRY(SOFTLOCKUP), ENTRY(HARDLOCKUP), ENTRY(HARDLOCKUP_ALL), ENTRY(SPINLOCKUP),
	ENTRY(SPINLOCKUP_IRQ), ENTRY(HUNG_TASK), ENTRY(MUTEX_DEADLOCK), ENTRY(RCU_STALL),
	ENTRY(IRQ_STORM), ENTRY(SOFTIRQ_STORM), ENTRY(TIMER_LOSS), ENTRY(AGENT_THREAD_STOPPED),
	ENTRY(USER_DEAD), ENTRY(PRINTK_FLOOD), {}
};
