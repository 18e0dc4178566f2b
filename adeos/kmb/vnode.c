// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Vnodes: who owns which CPUs, region and slot, and what may be done to them
 * when.  One mutex, kmb_lock, guards it all.  A vnode whose CPUs are waited for
 * without it is busy: nothing is done to it meanwhile.
 */
#include "kmb.h"

#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "vn_lapic.h"

#define BIND_TIMEOUT_MS	1000

DEFINE_MUTEX(kmb_lock);
static struct kmb_vnode vnodes[VN_MAX_VNODES];

struct kmb_vnode *kmb_vnode_find(u32 id)
{
	if (id == 0 || id >= VN_MAX_VNODES || !vnodes[id].id)
		return NULL;
	return &vnodes[id];
}

/* Begin a call that may wait for the vnode's CPUs without kmb_lock; false: another one does. */
bool kmb_vnode_enter(u32 id)
{
	struct kmb_vnode *v = kmb_vnode_find(id);

	if (!v)
		return true;
	if (v->busy)
		return false;
	v->busy = true;
	return true;
}

void kmb_vnode_leave(u32 id)
{
	struct kmb_vnode *v = kmb_vnode_find(id);

	if (v)
		v->busy = false;
}

static u32 count_state(const struct kmb_vnode *v, u32 state)
{
	u32 i, n = 0;

	for (i = 0; i < v->ncpus; i++)
		n += v->cpu[i]->state == state;
	return n;
}

static bool all_parked(const struct kmb_vnode *v)
{
	return count_state(v, KMB_CPU_PARKED) == v->ncpus;
}

bool kmb_vnode_started(const struct kmb_vnode *v)
{
	return !v->busy && count_state(v, KMB_CPU_STARTED) > 0;
}

/* A running vnode keeps the module; an unloaded one could not take it back. */
static void update_pin(struct kmb_vnode *v)
{
	bool pin = !all_parked(v);

	if (pin && !v->pinned)
		__module_get(THIS_MODULE);
	else if (!pin && v->pinned)
		module_put(THIS_MODULE);
	v->pinned = pin;
}

bool kmb_vnode_running_in(u64 base, u64 size)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++) {
		struct kmb_vnode *v = kmb_vnode_find(i);

		if (v && (v->busy || !all_parked(v)) &&
		    (kmb_overlap(base, size, v->region_base, v->region_size) ||
		     kmb_overlap(base, size, v->slot_base, v->slot_size)))
			return true;
	}
	return false;
}

int kmb_vnode_check_memory(const struct kmb_bind *b)
{
	u32 i;

	if (!IS_ALIGNED(b->region_base | b->region_size, VN_REGION_ALIGN) ||
	    b->region_size < VN_REGION_MIN || !PAGE_ALIGNED(b->slot_base) ||
	    !PAGE_ALIGNED(b->slot_size) || b->slot_size < VN_SLOT_SIZE)
		return -EINVAL;
	if (!kmb_memory_region(b->region_base, b->region_size) ||
	    !kmb_memory_slot(b->slot_base, b->slot_size)) {
		pr_err("vnode %u: region or slot lies outside the memory for vnodes\n", b->vnode);
		return -EPERM;
	}
	for (i = 1; i < VN_MAX_VNODES; i++) {
		struct kmb_vnode *v = kmb_vnode_find(i);

		if (!v || i == b->vnode)
			continue;
		if (kmb_overlap(b->region_base, b->region_size, v->region_base, v->region_size) ||
		    kmb_overlap(b->slot_base, b->slot_size, v->slot_base, v->slot_size)) {
			pr_err("vnode %u: region or slot overlaps that of vnode %u\n", b->vnode, i);
			return -EBUSY;
		}
	}
	return 0;
}

static void set_memory_of(struct kmb_vnode *v, const struct kmb_bind *b, void *page)
{
	if (v->page && v->page != page)
		memunmap(v->page);
	v->page = page;
	v->region_base = b->region_base;
	v->region_size = b->region_size;
	v->slot_base = b->slot_base;
	v->slot_size = b->slot_size;
}

static int move(struct kmb_vnode *v, const struct kmb_bind *b, void *page)
{
	u32 i;

	if (!all_parked(v))
		return -EBUSY;
	if (b->ncpus != v->ncpus)
		return -EINVAL;
	for (i = 0; i < v->ncpus; i++)
		if (b->cpu[i] != v->cpu[i]->cpu)
			return -EINVAL;
	set_memory_of(v, b, page);
	return 0;
}

static void forget(struct kmb_vnode *v)
{
	kmb_disarm(v->id);
	kmb_portal_close(v->id);
	kmb_cpus_unbind(v->cpu, v->ncpus);
	memunmap(v->page);
	memset(v, 0, sizeof(*v));
}

/* Takes the CPUs: they may be anywhere, so parking has to be confirmed. */
static int bind_new(struct kmb_vnode *v, const struct kmb_bind *b, void *page)
{
	u32 parked;
	u64 tsc;
	int rc;

	rc = kmb_cpus_bind(b->vnode, b->cpu, b->ncpus, v->cpu);
	if (rc)
		return rc;
	rc = kmb_portal_open(b->vnode, &v->vector, &v->dest_apicid);
	if (rc) {
		kmb_cpus_unbind(v->cpu, b->ncpus);
		return rc;
	}
	v->id = b->vnode;
	v->ncpus = b->ncpus;
	v->busy = true;
	set_memory_of(v, b, page);
	rc = kmb_startup_park(v, BIND_TIMEOUT_MS, &parked, &tsc);
	if (rc) {
		v->page = NULL;	/* the caller's again */
		forget(v);
	}
	return rc;
}

static void fill(const struct kmb_vnode *v, struct kmb_bind *b)
{
	u32 i;

	memset(b, 0, sizeof(*b));
	b->vnode = v->id;
	b->ncpus = v->ncpus;
	for (i = 0; i < v->ncpus; i++)
		b->cpu[i] = v->cpu[i]->cpu;
	b->region_base = v->region_base;
	b->region_size = v->region_size;
	b->slot_base = v->slot_base;
	b->slot_size = v->slot_size;
	b->vector = v->vector;
	b->dest_apicid = v->dest_apicid;
	b->started = count_state(v, KMB_CPU_STARTED);
	b->rings = kmb_portal_rings(v->id);
	b->start_tsc = v->start_tsc;
	kmb_control_query(b);
}

int kmb_vnode_bind(struct kmb_bind *b)
{
	struct kmb_vnode *v;
	void *page;
	int rc;

	if (b->vnode == 0 || b->vnode >= VN_MAX_VNODES || b->ncpus == 0 ||
	    b->ncpus > VN_MAX_CPUS)
		return -EINVAL;
	rc = kmb_vnode_check_memory(b);
	if (rc)
		return rc;
	v = kmb_vnode_find(b->vnode);
	if (v && v->slot_base == b->slot_base)
		page = v->page;
	else
		page = memremap(b->slot_base, PAGE_SIZE, MEMREMAP_WB);
	if (!page)
		return -ENOMEM;
	rc = v ? move(v, b, page) : bind_new(&vnodes[b->vnode], b, page);
	if (rc) {
		if (!v || page != v->page)
			memunmap(page);
		return rc;
	}
	/* of itself: what was armed was for where it was */
	kmb_disarm(b->vnode);
	kmb_disarm_memory(b->region_base, b->region_size, 0);
	fill(&vnodes[b->vnode], b);
	return 0;
}

int kmb_vnode_unbind(u32 id)
{
	struct kmb_vnode *v = kmb_vnode_find(id);

	if (!v)
		return -ENOENT;
	if (!all_parked(v))
		return -EBUSY;
	forget(v);
	return 0;
}

int kmb_vnode_query(struct kmb_bind *b)
{
	struct kmb_vnode *v = kmb_vnode_find(b->vnode);

	if (!v)
		return -ENOENT;
	fill(v, b);
	return 0;
}

static bool may_start(const struct kmb_vnode *v)
{
	return all_parked(v) && !kmb_bulk_busy(v->region_base, v->region_size) &&
	       !kmb_bulk_busy(v->slot_base, v->slot_size);
}

/* Page tables that the CPU reaches from real mode: in the slot, behind the trampoline. */
bool kmb_vnode_is_table(const struct kmb_vnode *v, u64 pa)
{
	return PAGE_ALIGNED(pa) && pa >= v->slot_base + PAGE_SIZE &&
	       pa < v->slot_base + v->slot_size;
}

int kmb_vnode_start(struct kmb_start *s)
{
	struct kmb_vnode *v = kmb_vnode_find(s->vnode);
	int rc;

	if (s->wait_us > KMB_START_WAIT_MAX_US)
		return -EINVAL;
	if (!v)
		return -ENOENT;
	if (!kmb_vnode_is_table(v, s->cr3) ||
	    s->entry < v->region_base || s->entry >= v->region_base + v->region_size ||
	    s->rsi < v->region_base || s->rsi >= v->region_base + v->region_size)
		return -EINVAL;
	if (!may_start(v))
		return -EBUSY;
	rc = kmb_startup_boot(v, s);
	update_pin(v);
	kmb_elcr_guard();
	return rc;
}

/* Page tables in the slot, what they need alone in CR4, and a jump into the kernel half. */
static bool is_resumable(const struct kmb_vnode *v, const struct kmb_resume *r)
{
	u64 others = r->cr4 & ~(u64)(X86_CR4_PAE | X86_CR4_LA57);

	return kmb_vnode_is_table(v, r->cr3) && !others && (r->cr4 & X86_CR4_PAE) &&
	       r->entry >> 56 == 0xff;
}

int kmb_vnode_resume(struct kmb_resume *r)
{
	struct kmb_vnode *v = kmb_vnode_find(r->vnode);
	int rc;

	if (r->wait_us > KMB_START_WAIT_MAX_US)
		return -EINVAL;
	if (!v)
		return -ENOENT;
	if (!is_resumable(v, r))
		return -EINVAL;
	if (!may_start(v))
		return -EBUSY;
	rc = kmb_startup_resume(v, r);
	update_pin(v);
	kmb_elcr_guard();
	return rc;
}

int kmb_vnode_park(struct kmb_park *p)
{
	struct kmb_vnode *v = kmb_vnode_find(p->vnode);
	int rc;

	if (p->reserved || p->timeout_ms < 1 || p->timeout_ms > 1000)
		return -EINVAL;
	if (!v)
		return -ENOENT;
	kmb_control_drop(v);
	kmb_disarm(v->id);
	rc = kmb_startup_park(v, p->timeout_ms, &p->parked, &p->tsc);
	update_pin(v);
	return rc;
}

/* A parked CPU must not be poked: an NMI would run whatever is in page 0. */
int kmb_vnode_interrupt(const struct kmb_ipi *i, bool nmi)
{
	struct kmb_vnode *v = kmb_vnode_find(i->vnode);

	if (i->reserved || (nmi ? i->vector != 0 : i->vector < 0x20 || i->vector > 0xff))
		return -EINVAL;
	if (!v)
		return -ENOENT;
	if (i->cpu >= v->ncpus)
		return -EINVAL;
	if (v->busy || v->cpu[i->cpu]->state != KMB_CPU_STARTED)
		return -EHOSTDOWN;
	vn_lapic_icr(nmi ? APIC_DM_NMI : APIC_DM_FIXED | i->vector, v->cpu[i->cpu]->apicid);
	return 0;
}

void kmb_vnode_exit(void)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++)
		if (kmb_vnode_find(i))
			forget(&vnodes[i]);
}
