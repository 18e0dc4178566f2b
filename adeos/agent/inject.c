// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Real faults, for trying things out; only where the root set VN_F_INJECT.
 * Each runs in kernel threads of its own, which all wait at a gate: it opens
 * when they are there and the command has been marked as taken.
 */
#include "agent.h"

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/reboot.h>
#include <linux/sched/signal.h>

#define BEATS_STOP_MS	1000	/* by then all beating threads have come in */

static DECLARE_COMPLETION(gate);
static bool hung;

static int do_panic(void *unused)
{
	panic("vnode-debug: injected panic on CPU %u", raw_smp_processor_id());
}

static int do_oops(void *unused)
{
	int *null = NULL;

	OPTIMIZER_HIDE_VAR(null);
	WRITE_ONCE(*null, 42);
	return 0;
}

bool inject_hung(void)
{
	return READ_ONCE(hung);
}

/* In D state, as on a lock that nobody will release */
void inject_hang_here(void)
{
	while (inject_hung()) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

/* Beats stop in VNODE_BEAT within a period; then all of user space stops. */
static int do_hang(void *unused)
{
	struct task_struct *p;

	WRITE_ONCE(hung, true);
	msleep(BEATS_STOP_MS);
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
	preempt_disable();
	return spin();
}

static int do_irqhang(void *unused)
{
	local_irq_disable();
	return spin();
}

static int do_halt(void *unused)
{
	kernel_halt();
	return 0;
}

static int do_reboot(void *unused)
{
	emergency_restart();
	return 0;
}

/* It says that it can be frozen, and never looks whether it should be. */
static int do_stuck(void *unused)
{
	set_freezable();
	while (true)
		schedule_timeout_idle(HZ);
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
	[VN_I_STUCK] = { do_stuck },
};

static int wait_and_run(void *fault)
{
	int (*run)(void *unused) = fault;

	wait_for_completion(&gate);
	return run(NULL);
}

static int inject_on(int (*run)(void *), unsigned int cpu)
{
	struct task_struct *p = kthread_create(wait_and_run, run, "vnode_inject/%u", cpu);

	if (IS_ERR(p))
		return -PTR_ERR(p);
	kthread_bind(p, cpu);
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

/* Lets the threads go; a spinning one may take this very CPU at once. */
void inject_go(void)
{
	complete_all(&gate);
}

/* Gets the threads ready.  Returns 0 or a positive errno. */
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
