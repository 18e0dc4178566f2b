// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Freezing this vnode so that the root may keep its memory and set it going
 * again, now or in a later incarnation.
 *
 * The kernel's own way to suspend to memory does the work: tasks frozen, devices
 * suspended, other CPUs off, timekeeping stopped.  Ours is what firmware would
 * do: the CPU's state goes to memory and the CPU parks.  What comes back may be
 * a copy: it takes its incarnation, time and randomness from the root before
 * any task runs.
 *
 * Limits: what user space keeps for itself (random numbers drawn, connections,
 * CLOCK_MONOTONIC) is the same in every incarnation; docs/warm-restart.md.
 */
#include "agent.h"

#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/suspend.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#include "freeze.h"

#define TASKS_MS	2000	/* for all tasks to freeze */
#define RESUME_TABLES	4	/* levels, with five of them: the last maps 2 MiB */
#define RESEED		0x5207	/* RNDRESEEDCRNG, linux/random.h */

enum stage { IDLE, TASKS, DEVICES, PARKED };

struct park_context park_context;
static struct vn_warm *warm;
static u64 *resume_tables;	/* NULL: no mapping, so no freezing */
static enum stage stage;
static bool resumed;

static void watch_tasks(struct work_struct *work);
static void freeze(struct work_struct *work);
static DECLARE_DELAYED_WORK(tasks_watch, watch_tasks);
static DECLARE_WORK(freeze_work, freeze);

static __printf(1, 2) void say_why(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vscnprintf(warm->reason, sizeof(warm->reason), format, args);
	va_end(args);
}

static void set_state(enum vn_warm_state state)
{
	smp_store_release(&warm->state, state);
}

/* As try_to_freeze_tasks() counts them */
static struct task_struct *find_unfrozen(void)
{
	struct task_struct *group, *task;

	for_each_process_thread(group, task)
		if (freezing_slow_path(task) && !(READ_ONCE(task->__state) & TASK_FROZEN))
			return task;
	return NULL;
}

/* The kernel itself would try for 20 s and name nobody to us. */
static void watch_tasks(struct work_struct *work)
{
	struct task_struct *task;

	if (READ_ONCE(stage) != TASKS)
		return;
	rcu_read_lock();
	task = find_unfrozen();
	if (task)
		say_why("task \"%s\" (pid %d) does not freeze", task->comm, task->pid);
	rcu_read_unlock();
	pm_system_wakeup();
}

static int begin(suspend_state_t state)
{
	WRITE_ONCE(stage, DEVICES);
	cancel_delayed_work_sync(&tasks_watch);
	return 0;
}

static void note_free(unsigned long *map, unsigned long first, unsigned long n)
{
	unsigned long base = root_side->region_base >> PAGE_SHIFT;
	unsigned long end = base + VN_FREE_PAGES_BYTES * BITS_PER_BYTE;

	if (first < base || first + n > end)
		return;
	bitmap_set(map, first - base, n);
	warm->free_pages += n;
}

static void note_zone(unsigned long *map, struct zone *zone)
{
	struct page *page;
	int order, type;

	for (order = 0; order < ARRAY_SIZE(zone->free_area); order++)
		for (type = 0; type < MIGRATE_TYPES; type++)
			list_for_each_entry(page, &zone->free_area[order].free_list[type], lru)
				note_free(map, page_to_pfn(page), 1UL << order);
}

/* Nobody else runs.  A kernel that relies on the content of free pages names none. */
static void note_free_pages(void)
{
	unsigned long *map = bridge_at(VN_BR_FREE_PAGES);
	int i;

	memset(map, 0, VN_FREE_PAGES_BYTES);
	warm->free_pages = 0;
	if (want_init_on_free() || page_poisoning_enabled())
		return;
	for (i = 0; i < MAX_NR_ZONES; i++)
		if (populated_zone(&NODE_DATA(0)->node_zones[i]))
			note_zone(map, &NODE_DATA(0)->node_zones[i]);
}

static u64 *lay_table(unsigned int n, u64 *pa)
{
	*pa = root_side->slot_base + VN_SLOT_PAGE_TABLES + n * PAGE_SIZE;
	return resume_tables + n * PTRS_PER_PGD;
}

/*
 * On them the CPU comes back: the trampoline's page mapped to itself, and this
 * kernel's half.  They lie where the page tables of the boot were, which are
 * below 4 GiB, as the CPU comes from real mode, and used no more.
 */
static u64 lay_resume_tables(void)
{
	const u64 *kernel = __va(park_context.cr3 & CR3_ADDR_MASK);
	u64 cr3, pa, flags = _PAGE_PRESENT | _PAGE_RW;
	u64 *table = lay_table(0, &cr3);
	unsigned int n;

	memset(resume_tables, 0, RESUME_TABLES * PAGE_SIZE);
	memcpy(table + PTRS_PER_PGD / 2, kernel + PTRS_PER_PGD / 2, PAGE_SIZE / 2);
	/* the top level is there; two more above the one that maps 2 MiB, or three */
	for (n = 1; n < (pgtable_l5_enabled() ? RESUME_TABLES : RESUME_TABLES - 1); n++) {
		u64 *next = lay_table(n, &pa);

		table[0] = pa | flags;
		table = next;
	}
	table[0] = flags | _PAGE_PSE;
	return cr3;
}

/* Of park.S.  What is written from here on into this kernel's memory is in the image. */
__visible void freeze_parked(void)
{
	warm->resume_cr3 = lay_resume_tables();
	note_free_pages();
	warm->resume_entry = (unsigned long)freeze_resume;
	warm->resume_cr4 = X86_CR4_PAE | (park_context.cr4 & X86_CR4_LA57);
	warm->frozen_tsc = rdtsc();
	set_state(VN_W_FROZEN);
	for (;;)
		native_halt();
}

/* The bridge is another one from here on: the root has emptied it. */
static int enter(suspend_state_t state)
{
	WRITE_ONCE(stage, PARKED);
	cpu_state_save();
	freeze_park();
	warm->entry_tsc = rdtsc();
	cpu_state_restore();
	warm->cpu_tsc = rdtsc();
	resumed = true;
	return 0;
}

static void set_wall_clock(void)
{
	u64 cycles = rdtsc() - root_side->start_tsc;
	u64 ns = root_side->wall_ns + mul_u64_u64_div_u64(cycles, NSEC_PER_MSEC, tsc_khz);
	struct timespec64 now = ns_to_timespec64(ns);
	int rc = do_settimeofday64(&now);

	if (rc)
		pr_warn("wall clock not set: %d\n", rc);
}

static void reseed(void)
{
	struct file *random;
	long rc;

	add_device_randomness(root_side->seed, sizeof(root_side->seed));
	memzero_explicit(root_side->seed, sizeof(root_side->seed));
	random = filp_open("/dev/urandom", O_RDWR, 0);
	rc = PTR_ERR_OR_ZERO(random);
	if (!rc) {
		rc = -ENOTTY; /* modules have no vfs_ioctl() any more */
		if (random->f_op->unlocked_ioctl)
			rc = random->f_op->unlocked_ioctl(random, RESEED, 0);
		filp_close(random, NULL);
	}
	if (rc)
		pr_warn("random numbers may repeat those of another incarnation: %ld\n", rc);
}

/* Devices are back, tasks still frozen; also after a freeze that failed. */
static void end(void)
{
	if (!resumed)
		return;
	set_wall_clock();
	reseed();
	bridge_rejoin();
	warm->devices_tsc = rdtsc();
}

static const struct platform_suspend_ops ops = {
	.valid = suspend_valid_only_mem,
	.begin = begin,
	.enter = enter,
	.end = end,
};

static void refuse(int rc)
{
	if (!warm->reason[0])
		say_why("%s: error %d", READ_ONCE(stage) == TASKS ? "tasks do not freeze" :
			"a device or CPU does not suspend", -rc);
	pr_warn("not frozen: %s\n", warm->reason);
	warm->error = -rc;
	set_state(VN_W_REFUSED);
}

static int suspend(void)
{
	int rc;

	schedule_delayed_work(&tasks_watch, msecs_to_jiffies(TASKS_MS));
	rc = pm_suspend(PM_SUSPEND_MEM);
	cancel_delayed_work_sync(&tasks_watch);
	return rc;
}

static void freeze(struct work_struct *work)
{
	int rc;

	resumed = false;
	rc = hooks_run("freeze");
	if (rc)
		say_why("a script in /etc/vnode-debug/freeze.d failed: %d", rc);
	else
		rc = suspend();
	if (resumed) {
		warm->thawed_tsc = rdtsc();
		set_state(VN_W_RESUMED);
		pr_info("resumed as incarnation %u\n", root_side->incarnation);
	} else {
		refuse(rc < 0 ? rc : -EIO);
	}
	WRITE_ONCE(stage, IDLE);
	portal_ring();
	hooks_run("thaw");
	ready_done(resumed);
}

/* 0 or a positive errno, as command.c wants it; after 0 freeze_go() has to follow. */
int freeze_claim(void)
{
	if (!resume_tables)
		return ENOMEM;
	if (!ready_declared())
		return EAGAIN;
	if (READ_ONCE(stage) != IDLE || control_held())
		return EBUSY;
	WRITE_ONCE(stage, TASKS);
	memset(warm->reason, 0, sizeof(warm->reason));
	warm->begun_tsc = rdtsc();
	set_state(VN_W_FREEZING);
	return 0;
}

void freeze_go(void)
{
	queue_work(system_unbound_wq, &freeze_work);
}

void freeze_declare(bool ready)
{
	if (READ_ONCE(stage) == IDLE)
		set_state(ready ? VN_W_READY : VN_W_NONE);
}

int freeze_init(void)
{
	u64 slot = root_side->slot_base;

	warm = bridge_at(VN_BR_WARM);
	resume_tables = memremap(slot + VN_SLOT_PAGE_TABLES, RESUME_TABLES * PAGE_SIZE,
				 MEMREMAP_WB);
	if (!resume_tables)
		return -ENOMEM;
	suspend_set_ops(&ops);
	return 0;
}
