// SPDX-License-Identifier: GPL-2.0-or-later
/* A module that fails on purpose: insmod crasher.ko fault=null|timer|stack|... (see faults[]) */
#include <linux/module.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

static char *fault = "none";
module_param(fault, charp, 0);

struct crasher_victim {
	int padding;
	int field;
};

/* An oops prints the code around the fault only if what lies before is mapped */
#define ROOM()	asm volatile(".skip 64, 0x90")

static noinline __attribute__((__noipa__)) void crasher_write(struct crasher_victim *victim)
{
	ROOM();
	WRITE_ONCE(victim->field, 1);
	barrier();
}

static noinline __attribute__((__noipa__)) void crasher_null(void)
{
	crasher_write(NULL);
	barrier();
}

static void crasher_tick(struct timer_list *unused)
{
	ROOM();
	BUG();
}
static DEFINE_TIMER(crasher_timer, crasher_tick);

static void crasher_arm(void)
{
	mod_timer(&crasher_timer, jiffies + 1);
	mdelay(1000);
}

static noinline __attribute__((__noipa__)) int crasher_recurse(int depth)
{
	volatile char room[256];

	room[0] = depth;
	if (depth < 0)
		return 0;
	return crasher_recurse(depth + 1) + room[0];
}

static void crasher_overflow(void)
{
	crasher_recurse(0);
}

/* Two threads take two mutexes in opposite order; a third waits behind a semaphore's owner */
static DEFINE_MUTEX(crasher_first);
static DEFINE_MUTEX(crasher_second);
static DECLARE_RWSEM(crasher_sem);

static int crasher_ab(void *unused)
{
	mutex_lock(&crasher_first);
	msleep(200);
	mutex_lock(&crasher_second);
	return 0;
}

static int crasher_ba(void *unused)
{
	mutex_lock(&crasher_second);
	msleep(200);
	mutex_lock(&crasher_first);
	return 0;
}

static int crasher_writer(void *unused)
{
	down_write(&crasher_sem);
	msleep_interruptible(1000000);
	up_write(&crasher_sem);
	return 0;
}

static int crasher_reader(void *unused)
{
	msleep(200);
	down_read(&crasher_sem);
	return 0;
}

#ifdef CONFIG_PREEMPT_RT
/* Its spinlocks and rwlocks sleep; who keeps one must not sleep, but can */
static DEFINE_SPINLOCK(crasher_kept);
static DEFINE_RWLOCK(crasher_table);

static int crasher_keeper(void *unused)
{
	spin_lock(&crasher_kept);
	write_lock(&crasher_table);
	msleep_interruptible(1000000);
	write_unlock(&crasher_table);
	spin_unlock(&crasher_kept);
	return 0;
}

static int crasher_spinner(void *unused)
{
	msleep(200);
	spin_lock(&crasher_kept);
	return 0;
}

static int crasher_lookup(void *unused)
{
	msleep(200);
	read_lock(&crasher_table);
	return 0;
}

static void crasher_sleeping(void)
{
	kthread_run(crasher_keeper, NULL, "crash_keeper");
	kthread_run(crasher_spinner, NULL, "crash_spinner");
	kthread_run(crasher_lookup, NULL, "crash_lookup");
}
#endif

static void crasher_deadlock(void)
{
	kthread_run(crasher_writer, NULL, "crash_writer");
	kthread_run(crasher_ab, NULL, "crash_ab");
	kthread_run(crasher_ba, NULL, "crash_ba");
	kthread_run(crasher_reader, NULL, "crash_reader");
}

static DEFINE_SPINLOCK(crasher_lock);

static void crasher_spin(void)
{
	unsigned long flags;

	spin_lock_irqsave(&crasher_lock, flags);
	for (;;)
		cpu_relax();
}

static noinline __attribute__((__noipa__)) void crasher_loop(void)
{
	for (;;)
		cpu_relax();
}

static void crasher_busy(void)
{
	preempt_disable();
	crasher_loop();
}

static noinline __attribute__((__noipa__)) void crasher_hog(void)
{
	while (alloc_pages(GFP_KERNEL, 0))
		cond_resched();
}

static void *crasher_object;

static noinline __attribute__((__noipa__)) void crasher_alloc(void)
{
	crasher_object = kmalloc(64, GFP_KERNEL);
}

static noinline __attribute__((__noipa__)) void crasher_free(void)
{
	kfree(crasher_object);
	barrier(); /* no tail call: the allocator is to name this function */
}

/* Writes to what it has freed; slub_debug=FPZU notices when the object is handed out again */
static void crasher_stale(void)
{
	int i;

	crasher_alloc();
	crasher_free();
	memset(crasher_object + 16, 'X', 16);
	for (i = 0; i < 1000; i++)
		crasher_alloc();
}

static const struct {
	const char *name;
	void (*run)(void);
} faults[] = {
	{ "null", crasher_null },
	{ "timer", crasher_arm },
	{ "stack", crasher_overflow },
	{ "deadlock", crasher_deadlock },
	{ "spin", crasher_spin },
	{ "softlockup", crasher_busy },
	{ "oom", crasher_hog },
	{ "stale", crasher_stale },
#ifdef CONFIG_PREEMPT_RT
	{ "rtlocks", crasher_sleeping },
#endif
};

static int __init crasher_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(faults); i++)
		if (!strcmp(fault, faults[i].name))
			faults[i].run();
	return 0;
}
module_init(crasher_init);

MODULE_DESCRIPTION("Fails on purpose");
MODULE_LICENSE("GPL");
