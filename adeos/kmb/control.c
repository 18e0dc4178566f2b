// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A debugger's control of a vnode: a lease, and the breakpoints in its memory.
 *
 * Control belongs to an open file of /dev/kmb.  However that ends, by a word
 * of the debugger, by kill -9, by a lease that nobody renews or by the vnode's
 * parking, the bytes under the breakpoints are put back here and the CPUs that
 * wait for the debugger are let go.
 */
#include "kmb.h"

#include <linux/io.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include <asm/tsc.h>

#define INT3	0xcc

/**
 * struct hold - control of one vnode; guarded by kmb_lock
 * @file: who has it, NULL = nobody
 * @pid: its process
 * @until: TSC at which the lease ends
 * @shared: mapping of the bridge from VN_BR_DEBUG to VN_BR_CONSOLE_OUT
 * @pa: of each breakpoint in use, 0 = free; as vn_control.breakpoint
 * @byte: that was there
 * @expiry: ends a lease
 */
struct hold {
	struct file *file;
	struct pid *pid;
	u64 until;
	void *shared;
	u64 pa[VN_MAX_BREAKPOINTS];
	u8 byte[VN_MAX_BREAKPOINTS];
	struct delayed_work expiry;
};

#define SHARED_SIZE	(VN_BR_CONSOLE_OUT - VN_BR_DEBUG)

static struct hold holds[VN_MAX_VNODES];

static struct vn_control *control_of(const struct hold *h)
{
	return h->shared + (VN_BR_CONTROL - VN_BR_DEBUG);
}

static struct vn_debug *mailbox(const struct hold *h, u32 cpu)
{
	return (struct vn_debug *)h->shared + cpu;
}

/* One page at most; atomic for a single byte. */
static int write_page(u64 pa, const void *data, size_t size)
{
	u8 *page = memremap(pa & PAGE_MASK, PAGE_SIZE, MEMREMAP_WB);

	if (!page)
		return -ENOMEM;
	if (size == 1)
		WRITE_ONCE(page[offset_in_page(pa)], *(const u8 *)data);
	else
		memcpy(page + offset_in_page(pa), data, size);
	memunmap(page);
	return 0;
}

static int read_byte(u64 pa, u8 *byte)
{
	u8 *page = memremap(pa & PAGE_MASK, PAGE_SIZE, MEMREMAP_WB);

	if (!page)
		return -ENOMEM;
	*byte = READ_ONCE(page[offset_in_page(pa)]);
	memunmap(page);
	return 0;
}

/* The byte goes back first: who is trapped meanwhile sees it and goes on. */
static int take_away(struct hold *h, u32 slot)
{
	int rc = write_page(h->pa[slot], &h->byte[slot], 1);

	if (rc)
		return rc;
	smp_wmb();
	WRITE_ONCE(control_of(h)->breakpoint[slot], 0);
	h->pa[slot] = 0;
	return 0;
}

static void let_run(struct kmb_vnode *v, struct hold *h)
{
	u32 i;

	for (i = 0; i < v->ncpus; i++) {
		struct vn_debug *d = mailbox(h, i);

		WRITE_ONCE(d->flags, 0);
		WRITE_ONCE(d->request, VN_DBG_RUN);
		smp_store_release(&d->seq, d->seq + 1);
	}
}

static void end(struct kmb_vnode *v, struct hold *h, bool run)
{
	u32 i;

	for (i = 0; i < VN_MAX_BREAKPOINTS; i++)
		if (h->pa[i] && take_away(h, i))
			pr_err("vnode %u: a breakpoint at %#llx stays: no memory\n",
			       v->id, h->pa[i]);
	memset(h->pa, 0, sizeof(h->pa));
	WRITE_ONCE(control_of(h)->nbreaks, 0);
	if (run) {
		let_run(v, h);
		smp_wmb();
		WRITE_ONCE(control_of(h)->until_tsc, 0);
	}
	h->until = rdtsc();
	cancel_delayed_work(&h->expiry);
	memunmap(h->shared);
	h->shared = NULL;
	put_pid(h->pid);
	h->pid = NULL;
	h->file = NULL;
}

static void expire_after(struct hold *h, u64 cycles)
{
	mod_delayed_work(system_wq, &h->expiry,
			 msecs_to_jiffies(div64_u64(cycles, tsc_khz)) + 1);
}

static void expire(struct work_struct *work)
{
	struct hold *h = container_of(to_delayed_work(work), struct hold, expiry);
	struct kmb_vnode *v;
	u64 now;

	mutex_lock(&kmb_lock);
	now = rdtsc();
	v = kmb_vnode_find(h - holds);
	if (h->file && v && now >= h->until) {
		pr_info("vnode %u: process %d did not renew its control\n",
			v->id, pid_nr(h->pid));
		end(v, h, true);
	} else if (h->file && v) {
		/* renewed, or jiffies were behind when it was set */
		expire_after(h, h->until - now);
	}
	mutex_unlock(&kmb_lock);
}

static void renew(struct hold *h, u32 lease_ms)
{
	u64 cycles = (u64)lease_ms * tsc_khz;

	h->until = rdtsc() + cycles;
	smp_wmb();	/* who sees it held sees take()'s facts */
	WRITE_ONCE(control_of(h)->until_tsc, h->until);
	expire_after(h, cycles);
}

static int take(struct kmb_vnode *v, struct hold *h, struct file *file,
		const struct kmb_control *c)
{
	struct vn_control *control;

	h->shared = memremap(v->region_base + VN_OFF_BRIDGE + VN_BR_DEBUG,
			     SHARED_SIZE, MEMREMAP_WB);
	if (!h->shared)
		return -ENOMEM;
	control = control_of(h);
	memset(control, 0, sizeof(*control));
	control->entry_start = c->entry_start;
	control->entry_end = c->entry_end;
	control->die_chain = c->die_chain;
	h->file = file;
	h->pid = get_pid(task_tgid(current));
	return 0;
}

int kmb_control(struct file *file, struct kmb_control *c)
{
	struct kmb_vnode *v = kmb_vnode_find(c->vnode);
	struct hold *h = &holds[v ? v->id : 0];
	u32 lease_ms = c->lease_ms & ~KMB_LEASE_RENEW;
	bool renewal = c->lease_ms & KMB_LEASE_RENEW;
	int rc = 0;

	if (!v)
		return -ENOENT;
	if (!(file->f_mode & FMODE_WRITE))
		return -EACCES;
	if (c->reserved || lease_ms > KMB_LEASE_MAX_MS || (renewal && !lease_ms))
		return -EINVAL;
	if (h->file && h->file != file) {
		c->holder = pid_vnr(h->pid);
		return -EBUSY;
	}
	if (!lease_ms) {
		if (h->file)
			end(v, h, true);
		return 0;
	}
	if (!h->file && renewal)
		return -ETIME;
	if (!h->file) {
		if (!kmb_vnode_started(v))
			return -EHOSTDOWN;
		rc = take(v, h, file, c);
	}
	if (rc)
		return rc;
	renew(h, lease_ms);
	c->holder = pid_vnr(h->pid);
	c->until_tsc = h->until;
	return 0;
}

bool kmb_control_held(const struct file *file, u32 vnode)
{
	return vnode < VN_MAX_VNODES && file && holds[vnode].file == file;
}

void kmb_control_query(struct kmb_bind *b)
{
	const struct hold *h = &holds[b->vnode];

	b->holder = h->file ? pid_vnr(h->pid) : 0;
	b->held_until = h->until;
}

/* The vnode is about to be parked for good: no CPU that waits is let run, and its dump
 * holds no INT3. */
void kmb_control_drop(struct kmb_vnode *v)
{
	struct hold *h = &holds[v->id];

	if (h->file)
		end(v, h, false);
}

void kmb_control_closed(const struct file *file)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++) {
		struct kmb_vnode *v = kmb_vnode_find(i);

		if (v && holds[i].file == file)
			end(v, &holds[i], true);
	}
}

static bool owns(const struct kmb_vnode *v, u64 pa, u64 size)
{
	return kmb_within(pa, size, v->region_base, v->region_size) ||
	       kmb_within(pa, size, v->slot_base + PAGE_SIZE, v->slot_size - PAGE_SIZE);
}

int kmb_control_poke(const struct kmb_poke *p)
{
	const struct kmb_vnode *v = kmb_vnode_find(p->vnode);
	u64 done = 0;
	void *data;
	int rc = 0;

	if (!p->size || p->size > KMB_POKE_MAX)
		return -EINVAL;
	if (!v || !owns(v, p->pa, p->size))
		return -EPERM;
	data = memdup_user((void __user *)p->data, p->size);
	if (IS_ERR(data))
		return PTR_ERR(data);
	while (done < p->size && !rc) {
		u64 pa = p->pa + done;
		size_t n = min_t(u64, p->size - done, PAGE_SIZE - offset_in_page(pa));

		rc = write_page(pa, data + done, n);
		done += n;
	}
	kfree(data);
	return rc;
}

static int set_break(struct hold *h, const struct kmb_break *b)
{
	static const u8 int3 = INT3;
	struct vn_control *c = control_of(h);
	u32 slot, free = VN_MAX_BREAKPOINTS;
	int rc;

	for (slot = VN_MAX_BREAKPOINTS; slot--;) {
		if (h->pa[slot] == b->pa)
			return -EEXIST;
		if (!h->pa[slot])
			free = slot;
	}
	if (free == VN_MAX_BREAKPOINTS)
		return -ENOSPC;
	rc = read_byte(b->pa, &h->byte[free]);
	if (rc)
		return rc;
	/* known before it is there: whoever hits it must find it */
	WRITE_ONCE(c->breakpoint[free], b->va);
	WRITE_ONCE(c->nbreaks, max(free + 1, READ_ONCE(c->nbreaks)));
	smp_wmb();
	rc = write_page(b->pa, &int3, 1);
	if (rc)
		WRITE_ONCE(c->breakpoint[free], 0);
	else
		h->pa[free] = b->pa;
	return rc;
}

int kmb_control_break(const struct kmb_break *b)
{
	const struct kmb_vnode *v = kmb_vnode_find(b->vnode);
	struct hold *h = &holds[v ? v->id : 0];
	u32 slot;

	if (!v || !kmb_within(b->pa, 1, v->region_base, v->region_size))
		return -EPERM;
	if (b->set > 1 || !b->pa)
		return -EINVAL;
	if (b->set)
		return set_break(h, b);
	for (slot = 0; slot < VN_MAX_BREAKPOINTS; slot++)
		if (h->pa[slot] == b->pa)
			return take_away(h, slot);
	return -ENOENT;
}

void __init kmb_control_init(void)
{
	u32 i;

	for (i = 0; i < VN_MAX_VNODES; i++)
		INIT_DELAYED_WORK(&holds[i].expiry, expire);
}

void kmb_control_exit(void)
{
	u32 i;

	for (i = 0; i < VN_MAX_VNODES; i++)
		cancel_delayed_work_sync(&holds[i].expiry);
}
