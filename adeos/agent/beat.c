// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Heartbeats in three layers, on every CPU: a timer in hard interrupt context,
 * a kernel thread, and user space by VNODE_BEAT.  The timer also leaves a
 * sample of the interrupted registers.
 */
#include "agent.h"

#include <linux/cpuhotplug.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <asm/irq_regs.h>
#include <asm/tsc.h>

#include "vn_lapic.h"

#define PERIOD_MIN_US	1000
#define PERIOD_MAX_US	10000000
#define PERIOD_US	100000	/* when the root wishes none */

static DEFINE_PER_CPU(struct hrtimer, timer);
static DEFINE_PER_CPU(struct task_struct *, thread);

static ktime_t period(enum vn_layer layer)
{
	u32 us = READ_ONCE(root_side->period_us[layer]) ?: PERIOD_US;

	return ns_to_ktime(clamp_t(u64, us, PERIOD_MIN_US, PERIOD_MAX_US) * NSEC_PER_USEC);
}

/* Called with preemption off. */
void beat(enum vn_layer layer)
{
	unsigned int cpu = smp_processor_id();
	struct vn_beat *b;

	if (!cpu_has_mailbox(cpu))
		return;
	b = (struct vn_beat *)bridge_at(VN_BR_BEATS) + cpu;
	WRITE_ONCE(b->tsc[layer], rdtsc());
	WRITE_ONCE(b->count[layer], b->count[layer] + 1);
}

static enum hrtimer_restart timer_beat(struct hrtimer *t)
{
	const struct pt_regs *regs = get_irq_regs();
	unsigned int cpu = smp_processor_id();

	beat(VN_LAYER_IRQ);
	debug_tick();
	if (regs && cpu_has_mailbox(cpu))
		frame_save(frame_of(VN_BR_SAMPLES, cpu), regs, 0);
	hrtimer_forward_now(t, period(VN_LAYER_IRQ));
	return HRTIMER_RESTART;
}

/* Idle state: a sleeping beat thread is no load. */
static int thread_beat(void *unused)
{
	while (!kthread_should_stop()) {
		ktime_t next = period(VN_LAYER_SCHED);

		preempt_disable();
		beat(VN_LAYER_SCHED);
		preempt_enable();
		set_current_state(TASK_IDLE);
		if (!kthread_should_stop())
			schedule_hrtimeout_range(&next, NSEC_PER_MSEC, HRTIMER_MODE_REL);
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

static void setup_timer(struct hrtimer *t)
{
#ifdef AGENT_HAVE_HRTIMER_SETUP
	hrtimer_setup(t, timer_beat, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
#else
	hrtimer_init(t, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	t->function = timer_beat;
#endif
}

/* The root addresses CPUs by their place in its list, we by Linux numbers. */
static void check_number(unsigned int cpu)
{
	u32 id = vn_lapic_id();

	if (!cpu_has_mailbox(cpu) || cpu >= READ_ONCE(root_side->ncpus))
		pr_warn("CPU %u is unknown to the root: not watched\n", cpu);
	else if (READ_ONCE(root_side->apicid[cpu]) != id)
		pr_warn("CPU %u has APIC id %#x, the root expects %#x: NMIs will miss\n",
			cpu, id, READ_ONCE(root_side->apicid[cpu]));
}

static int cpu_up(unsigned int cpu)
{
	struct hrtimer *t = this_cpu_ptr(&timer);
	struct task_struct *p;

	check_number(cpu);
	p = kthread_create_on_node(thread_beat, NULL, cpu_to_node(cpu), "vnode_beat/%u", cpu);
	if (IS_ERR(p))
		return PTR_ERR(p);
	kthread_bind(p, cpu);
	this_cpu_write(thread, p);
	wake_up_process(p);
	setup_timer(t);
	hrtimer_start(t, period(VN_LAYER_IRQ), HRTIMER_MODE_REL_PINNED_HARD);
	WRITE_ONCE(vnode_side->ncpus, num_online_cpus());
	return 0;
}

static int cpu_down(unsigned int cpu)
{
	hrtimer_cancel(this_cpu_ptr(&timer));
	kthread_stop(this_cpu_read(thread));
	return 0;
}

int beat_init(void)
{
	int rc = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "vnode_agent:beat", cpu_up, cpu_down);

	return rc < 0 ? rc : 0;
}
