// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The root kernel's signs of life and its last word, in the root bridge, where
 * the successor reads them: a vnode that watches the root and outlives it.
 *
 * A timer beats, apart from the daemon: a dead daemon is no dead root.  The
 * panic notifier leaves message and registers, and keeps panic() from resetting
 * the machine while the successor runs: it decides at that moment, so what
 * panic= and kernel.panic say stays as it is for all who read it.
 *
 * Limits: a root with a crash kernel of its own (kdump) jumps into that before
 * any notifier; it looks like a hang from outside.
 */
#include "kmb.h"
#include "vn_msr.h"

#include <linux/init.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/utsname.h>
#include <asm/irqflags.h>
#include <asm/segment.h>
#include <asm/tsc.h>

/* split off crash_core.h in 6.9 */
#if __has_include(<linux/vmcore_info.h>)
#include <linux/vmcore_info.h>
#else
#include <linux/crash_core.h>
#endif

enum { R_GS_BASE = 22 };	/* index into vn_frame.regs */

static_assert(VN_ROOT_LAST >= VN_ROOT_TABLE + VN_MAX_VNODES * sizeof(struct vn_status));
static_assert(VN_ROOT_LAST_REGS >= VN_ROOT_LAST + sizeof(struct vn_last));
static_assert(VN_ROOT_LAST_REGS + sizeof(struct vn_frame) <= VN_ROOT_SHADOW);

static struct vn_last *last;
static struct timer_list beat_timer;

static struct vn_frame *regs_area(void)
{
	return (void *)last + (VN_ROOT_LAST_REGS - VN_ROOT_LAST);
}

static void beat(struct timer_list *timer)
{
	if (READ_ONCE(last->state) != VN_L_ALIVE)
		return;
	WRITE_ONCE(last->beat_tsc, rdtsc());
	WRITE_ONCE(last->beat, last->beat + 1);
	mod_timer(timer, jiffies + msecs_to_jiffies(VN_LAST_PERIOD_MS));
}

/* From here on the beats mean nothing. */
static void leave(u32 state)
{
	if (last->state != VN_L_ALIVE)
		return;
	last->tsc = rdtsc();
	smp_store_release(&last->state, state);
}

/*
 * As they are where the notifier returns to, in the kernel proper: a debugger
 * unwinds from there without this module's tables.  @frame is that of the
 * notifier: the caller's RBP, then the return address.  The other registers
 * hold nothing of the caller's by now, and are 0.
 */
static void save_registers(const unsigned long *frame)
{
	struct vn_frame *f = regs_area();
	struct pt_regs regs = {
		.bp = frame[0],
		.ip = frame[1],
		.sp = (unsigned long)(frame + 2),
		.cs = __KERNEL_CS,
		.ss = __KERNEL_DS,
		.flags = native_save_fl(),
	};
	u64 gs;

	rdmsrq(MSR_GS_BASE, gs);
	f->seq |= 1;
	smp_wmb();
	f->tsc = rdtsc();
	memcpy(f->regs, &regs, sizeof(regs));
	f->regs[R_GS_BASE] = gs;
	f->current_task = (unsigned long)current;
	f->flags = VN_FRAME_GP | VN_FRAME_CRASHED;
	smp_wmb();
	f->seq++;
}

/* No lock: whoever held it may be stopped by now. */
static bool successor_runs(void)
{
	const struct kmb_vnode *v = last->successor ? kmb_vnode_find(last->successor) : NULL;

	return v && kmb_vnode_started(v);
}

static int panicked(struct notifier_block *block, unsigned long event, void *message)
{
	save_registers(__builtin_frame_address(0));
	last->cpu = raw_smp_processor_id();
	last->pid = current->pid;
	memcpy(last->comm, current->comm, sizeof(last->comm));
	last->comm[sizeof(last->comm) - 1] = 0;
	strscpy(last->message, message ?: "", sizeof(last->message));
	leave(VN_L_PANIC);
	if (successor_runs() && panic_timeout) {
		pr_emerg("vnode %u succeeds the root: no reset, panic=%d is not obeyed\n",
			 last->successor, panic_timeout);
		panic_timeout = 0;
	}
	return NOTIFY_DONE;
}

static int shut_down(struct notifier_block *block, unsigned long event, void *command)
{
	leave(VN_L_HALTED);
	return NOTIFY_DONE;
}

static struct notifier_block panic_block = {
	.notifier_call = panicked,
	.priority = INT_MAX,
};

static struct notifier_block reboot_block = {
	.notifier_call = shut_down,
};

struct ram {
	u32 n;
	u32 more;
	struct kmb_range range[VN_LAST_RANGES];
};

/* Without what is given to vnodes: offline memory is still listed as System RAM. */
static void list_range(struct ram *ram, u64 base, u64 end)
{
	struct kmb_range given = { .base = base, .size = end - base };

	if (base >= end)
		return;
	if (kmb_memory_given(&given)) {
		list_range(ram, base, given.base);
		list_range(ram, given.base + given.size, end);
	} else if (ram->n == VN_LAST_RANGES) {
		ram->more++;
	} else {
		ram->range[ram->n++] = given;
	}
}

static int add_ram(struct resource *r, void *ram)
{
	list_range(ram, PAGE_ALIGN(r->start), (r->end + 1) & PAGE_MASK);
	return 0;
}

/* Written only when it changed: the successor's agent may be reading it. */
static void list_ram(void)
{
	struct ram ram = { 0 };

	static_assert(sizeof(ram.range) == sizeof(last->range));
	walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_SYSTEM_RAM, 0, -1, &ram, add_ram);
	if (ram.more)
		pr_warn("the successor sees %d ranges of the root's RAM, not %u more\n",
			VN_LAST_RANGES, ram.more);
	if (last->nranges == ram.n && !memcmp(last->range, ram.range, sizeof(ram.range)))
		return;
	memcpy(last->range, ram.range, sizeof(ram.range));
	WRITE_ONCE(last->nranges, ram.n);
}

int kmb_last_successor(u32 vnode)
{
	if (vnode >= VN_MAX_VNODES)
		return -EINVAL;
	list_ram();
	if (vnode == last->successor)
		return 0;
	last->successor = vnode;
	if (vnode)
		pr_info("vnode %u succeeds the root: while it runs, a panic of the root resets nothing (panic=%d)\n",
			vnode, panic_timeout);
	else
		pr_info("no successor: a panic of the root ends as panic=%d says\n", panic_timeout);
	return 0;
}

int __init kmb_last_init(void)
{
	struct vn_root_info info = { 0 };

	kmb_memory_info(&info);
	last = memremap(info.root_pa + VN_ROOT_LAST,
			VN_ROOT_LAST_REGS + sizeof(struct vn_frame) - VN_ROOT_LAST, MEMREMAP_WB);
	if (!last) {
		pr_err("no room to map the root bridge\n");
		return -ENOMEM;
	}
	memset(last, 0, sizeof(*last));
	memset(regs_area(), 0, sizeof(struct vn_frame));
	last->abi = VN_ABI_VERSION;
	last->vmcoreinfo_pa = paddr_vmcoreinfo_note();
	last->vmcoreinfo_size = VMCOREINFO_NOTE_SIZE;
	strscpy(last->release, init_utsname()->release, sizeof(last->release));
	last->beat_tsc = rdtsc();
	smp_store_release(&last->magic, VN_LAST_MAGIC);
	timer_setup(&beat_timer, beat, 0);
	mod_timer(&beat_timer, jiffies + 1);
	atomic_notifier_chain_register(&panic_notifier_list, &panic_block);
	register_reboot_notifier(&reboot_block);
	return 0;
}

void kmb_last_exit(void)
{
	unregister_reboot_notifier(&reboot_block);
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_block);
	leave(VN_L_HALTED);
#ifdef KMB_HAVE_TIMER_DELETE_SYNC
	timer_delete_sync(&beat_timer);
#else
	del_timer_sync(&beat_timer);
#endif
	memunmap(last);
}
