// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Real faults, for trying things out; only where the root set VN_F_INJECT.
 * Each runs in kernel threads of its own a moment after it was asked for, so
 * that the command is seen as taken.
 */
#include "agent.h"

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>

#define MOMENT_MS	20

static bool hung;

static int do_panic(void *unused)
{
	msleep(MOMENT_MS);
	panic("vnode-debug: injected panic on CPU %u", raw_smp_processor_id());
}

static int do_oops(void *unused)
{
	int *null = NULL;

	msleep(MOMENT_MS);
	OPTIMIZER_HIDE_VAR(null);
	WRITE_ONCE(*null, 42);
	return 0;
}

bool inject_hung(void)
{
	return READ_ONCE(hung);
}

/* In D state, as on a lock that nobody will release */
void __noreturn inject_hang_here(void)
{
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

/* Beats stop in VNODE_BEAT within a period; then all of user space stops. */
static int do_hang(void *unused)
{
	struct task_struct *p;

	WRITE_ONCE(hung, true);
	msleep(1000);
	rcu_read_lock();
	for_each_process(p)
		if (!(p->flags & PF_KTHREAD))
			send_sig(SIGSTOP, p, 1);
	rcu_read_unlock();
	return 0;
}

static int spin(void)
{
	while (true)
		cpu_relax();
	return 0;
}

static int do_softlockup(void *unused)
{
	msleep(MOMENT_MS);
	preempt_disable();
	return spin();
}

static int do_irqhang(void *unused)
{
	msleep(MOMENT_MS);
	local_irq_disable();
	return spin();
}

static int do_halt(void *unused)
{
	msleep(MOMENT_MS);
	kernel_halt();
	return 0;
}

static int do_reboot(void *unused)
{
	msleep(MOMENT_MS);
	emergency_restart();
	return 0;
}

static const struct {
	int (*run)(void *unused);
	bool everywhere;	/* a thread on each CPU */
} faults[] = {
	[VN_I_PANIC] = { do_panic },
	[VN_I_OOPS] = { do_oops },
	[VN_I_HANG] = { do_hang },
	[VN_I_SOFTLOCKUP] = { do_softlockup, true },
	[VN_I_IRQHANG] = { do_irqhang, true },
	[VN_I_HALT] = { do_halt },
	[VN_I_REBOOT] = { do_reboot },
};

static struct task_struct *thread_on(int (*run)(void *), unsigned int cpu)
{
	struct task_struct *p = kthread_create(run, NULL, "vnode_inject/%u", cpu);

	if (!IS_ERR(p))
		kthread_bind(p, cpu);
	return p;
}

static int inject_on(int (*run)(void *), unsigned int cpu)
{
	struct task_struct *p = thread_on(run, cpu);

	if (IS_ERR(p))
		return -PTR_ERR(p);
	wake_up_process(p);
	return 0;
}

static int inject_everywhere(int (*run)(void *))
{
	unsigned int cpu;
	int rc = 0;

	for_each_online_cpu(cpu)
		rc = inject_on(run, cpu) ?: rc;
	return rc;
}

/* Returns 0 or a positive errno. */
int inject(u64 arg)
{
	unsigned int kind = arg & 0xff, cpu = arg >> 8 & 0xff;

	if (arg >> 16 || kind >= ARRAY_SIZE(faults) || !faults[kind].run ||
	    cpu >= nr_cpu_ids || !cpu_online(cpu))
		return EINVAL;
	if (faults[kind].everywhere)
		return inject_everywhere(faults[kind].run);
	return inject_on(faults[kind].run, cpu);
}
