// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KMB_ARM and its kin: what fire.c starts when the daemon is silent.
 *
 * The daemon composes the successor ahead.  What can lie where it will run does
 * (a region that nobody uses); what cannot, because the vnode is still there, is
 * kept here.  Either has a digest, checked when it is armed and when it fires:
 * nobody watches that memory meanwhile.
 *
 * Limit: the bytes kept here are the root kernel's memory, which a wild write of
 * a vnode can hit as well as any other.  The digest tells.
 */
#include "fire.h"

#include <linux/err.h>
#include <linux/io.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

/**
 * struct record - what became of a vnode's arming
 * @fire: as KMB_FIRE tells it
 * @kept: the bytes of KMB_FIRE
 */
struct record {
	struct kmb_fire fire;
	void *kept;
};

/* both guarded by kmb_lock */
static struct kmb_armed *armed[VN_MAX_VNODES];
static struct record records[VN_MAX_VNODES];

struct kmb_armed *kmb_armed(u32 vnode)
{
	return vnode < VN_MAX_VNODES ? armed[vnode] : NULL;
}

/* It is the caller's from now on: nothing fires it any more. */
struct kmb_armed *kmb_armed_take(u32 vnode)
{
	struct kmb_armed *a = kmb_armed(vnode);

	if (a)
		armed[vnode] = NULL;
	return a;
}

void kmb_armed_free(struct kmb_armed *a)
{
	u32 i;

	if (!a)
		return;
	for (i = 0; i < KMB_ARM_PIECES; i++) {
		vfree(a->held[i]);
		memunmap(a->dest[i]);
	}
	memunmap(a->bridge);
	memunmap(a->next);
	vfree(a->keep);
	kfree(a);
}

void kmb_disarm(u32 vnode)
{
	kmb_armed_free(kmb_armed_take(vnode));
}

/* @vnode: the one that may have it, 0 = none */
void kmb_disarm_memory(u64 base, u64 size, u32 vnode)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++) {
		const struct kmb_armed *a = armed[i];

		if (a && i != vnode &&
		    kmb_overlap(base, size, a->arm.region_base, a->arm.region_size)) {
			pr_info("vnode %u is not armed any more: its region is used\n", i);
			kmb_disarm(i);
		}
	}
}

struct kmb_fire *kmb_fire_record(u32 vnode)
{
	return &records[vnode].fire;
}

static void forget(struct record *r)
{
	vfree(r->kept);
	memset(r, 0, sizeof(*r));
}

/* What was kept is the record's now. */
void kmb_fire_keep(u32 vnode, struct kmb_armed *a)
{
	struct record *r = &records[vnode];

	vfree(r->kept);
	r->kept = a->keep;
	r->fire.size = a->keep_size;
	a->keep = NULL;
}

/* The first piece that is not what was armed, KMB_ARM_PIECES when all are. */
u32 kmb_armed_altered(const struct kmb_armed *a)
{
	u32 i;

	for (i = 0; i < a->arm.npieces; i++) {
		const struct kmb_piece *p = &a->arm.piece[i];

		if (!kmb_digest_is(a->held[i] ?: a->dest[i], p->size, p->sha256))
			return i;
	}
	return KMB_ARM_PIECES;
}

/* Copies what is to be kept; maps where it all goes. */
static int take_piece(struct kmb_armed *a, u32 i)
{
	const struct kmb_piece *p = &a->arm.piece[i];

	if (!p->size || (!kmb_within(p->pa, p->size, a->arm.region_base, a->arm.region_size) &&
			 !kmb_memory_slot(p->pa, p->size)))
		return -EPERM;
	if (p->data) {
		a->held[i] = vmalloc(p->size);
		if (!a->held[i])
			return -ENOMEM;
		if (copy_from_user(a->held[i], u64_to_user_ptr(p->data), p->size))
			return -EFAULT;
	}
	a->dest[i] = memremap(p->pa, p->size, MEMREMAP_WB);
	return a->dest[i] ? 0 : -ENOMEM;
}

static int take_pieces(struct kmb_armed *a)
{
	u64 held = 0;
	u32 i;
	int rc;

	for (i = 0; i < a->arm.npieces; i++) {
		const struct kmb_piece *p = &a->arm.piece[i];

		if (p->data && (p->size > KMB_ARM_HELD_MAX || (held += p->size) > KMB_ARM_HELD_MAX))
			return -E2BIG;
		rc = take_piece(a, i);
		if (rc)
			return rc;
	}
	a->next = memremap(a->arm.region_base + VN_OFF_BRIDGE + VN_BR_ROOT, PAGE_SIZE, MEMREMAP_WB);
	if (!a->next)
		return -ENOMEM;
	return kmb_armed_altered(a) < KMB_ARM_PIECES ? -EBADMSG : 0;
}

static bool plausible(const struct kmb_arm *arm)
{
	return arm->npieces && arm->npieces <= KMB_ARM_PIECES &&
	       arm->silence_ms && arm->silence_ms <= KMB_FIRE_SILENCE_MAX &&
	       kmb_within(arm->entry, 1, arm->region_base, arm->region_size) &&
	       kmb_within(arm->rsi, 1, arm->region_base, arm->region_size);
}

/* Everything that needs no lock.  The region is the caller's or nobody's: that is checked later. */
static struct kmb_armed *prepare(void __user *p)
{
	struct kmb_armed *a = kzalloc(sizeof(*a), GFP_KERNEL);
	int rc = -EINVAL;

	if (!a)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(&a->arm, p, sizeof(a->arm)))
		rc = -EFAULT;
	else if (!kmb_memory_region(a->arm.region_base, a->arm.region_size))
		rc = -EPERM;
	else if (plausible(&a->arm))
		rc = take_pieces(a);
	if (!rc)
		return a;
	kmb_armed_free(a);
	return ERR_PTR(rc);
}

/* What lies in place already may lie in no memory that the vnode has. */
static bool pieces_fit(const struct kmb_vnode *v, const struct kmb_armed *a)
{
	bool moves = a->arm.region_base != v->region_base;
	u32 i;

	for (i = 0; i < a->arm.npieces; i++) {
		const struct kmb_piece *p = &a->arm.piece[i];
		bool inside = kmb_within(p->pa, p->size, a->arm.region_base, a->arm.region_size);

		if (!inside && !kmb_within(p->pa, p->size, v->slot_base + PAGE_SIZE,
					   VN_SLOT_RAM - PAGE_SIZE))
			return false;
		if (!a->held[i] && !(inside && moves))
			return false;
	}
	return true;
}

/* The vnode where it is to be started. */
struct kmb_bind kmb_armed_bind(const struct kmb_vnode *v, const struct kmb_armed *a)
{
	struct kmb_bind bind = {
		.vnode = v->id,
		.ncpus = v->ncpus,
		.region_base = a->arm.region_base,
		.region_size = a->arm.region_size,
		.slot_base = v->slot_base,
		.slot_size = v->slot_size,
	};
	u32 i;

	for (i = 0; i < v->ncpus; i++)
		bind.cpu[i] = v->cpu[i]->cpu;
	return bind;
}

static int check(struct kmb_vnode *v, const struct kmb_armed *a)
{
	const struct kmb_arm *arm = &a->arm;
	struct kmb_bind bind = kmb_armed_bind(v, a);
	int rc = kmb_vnode_check_memory(&bind);

	if (rc)
		return rc;
	if (kmb_overlap(arm->region_base, arm->region_size, v->region_base, v->region_size) &&
	    (arm->region_base != v->region_base || arm->region_size != v->region_size))
		return -EINVAL;
	if (!pieces_fit(v, a) || !kmb_vnode_is_table(v, arm->cr3))
		return -EINVAL;
	return 0;
}

/* Whoever arms may run at the lowest priority: what takes long is done without the lock. */
static int make_room(struct kmb_armed *a)
{
	const struct kmb_vnode *v;

	mutex_lock(&kmb_lock);
	v = kmb_vnode_find(a->arm.vnode);
	if (v) {
		a->from_base = v->region_base;
		a->keep_size = KMB_FIRE_BRIDGE + v->slot_size - VN_SLOT_RAM;
	}
	mutex_unlock(&kmb_lock);
	if (!a->keep_size)
		return -ENOENT;
	a->keep = vmalloc(a->keep_size);
	a->bridge = memremap(a->from_base + VN_OFF_BRIDGE, VN_BRIDGE_SIZE, MEMREMAP_WB);
	return a->keep && a->bridge ? 0 : -ENOMEM;
}

static int install(struct kmb_armed *a, struct kmb_armed **before)
{
	struct kmb_vnode *v = kmb_vnode_find(a->arm.vnode);
	struct record *r;
	int rc;

	if (!v)
		return -ENOENT;
	if (!kmb_vnode_started(v))
		return -EHOSTDOWN;
	r = &records[v->id];
	if (r->fire.state == KMB_F_FIRED || v->region_base != a->from_base ||
	    a->keep_size != KMB_FIRE_BRIDGE + v->slot_size - VN_SLOT_RAM)
		return -EBUSY;
	rc = check(v, a);
	if (rc)
		return rc;
	kmb_disarm_memory(a->arm.region_base, a->arm.region_size, v->id);
	*before = kmb_armed_take(v->id);
	forget(r);
	r->fire.vnode = v->id;
	r->fire.state = KMB_F_ARMED;
	r->fire.incarnation = a->arm.incarnation;
	r->fire.successor = a->arm.successor;
	r->fire.silence_ms = a->arm.silence_ms;
	r->fire.cookie = a->arm.cookie;
	r->fire.old_base = v->region_base;
	r->fire.old_size = v->region_size;
	r->fire.region_base = a->arm.region_base;
	r->fire.region_size = a->arm.region_size;
	armed[v->id] = a;
	return 0;
}

long kmb_arm(struct file *file, void __user *p)
{
	struct kmb_armed *a, *before = NULL;
	int rc;

	if (!kmb_is_owner(file))
		return -EACCES;
	a = prepare(p);
	if (IS_ERR(a))
		return PTR_ERR(a);
	rc = make_room(a);
	if (!rc) {
		mutex_lock(&kmb_lock);
		rc = kmb_owns(file) ? install(a, &before) : -EACCES;
		mutex_unlock(&kmb_lock);
	}
	kmb_armed_free(before);
	if (rc)
		kmb_armed_free(a);
	else
		kmb_fire_watch();
	return rc;
}

/* No copy to user space under kmb_lock: a mapping of ours that faults there wants it, too. */
long kmb_fire_tell(void __user *p)
{
	struct kmb_fire told;
	void *kept = NULL;
	u64 data, room;
	u32 vnode;
	long rc = 0;

	if (copy_from_user(&told, p, sizeof(told)))
		return -EFAULT;
	if (told.vnode == 0 || told.vnode >= VN_MAX_VNODES)
		return -EINVAL;
	data = told.data;
	room = told.size;
	vnode = told.vnode;
	if (data) {
		kept = vmalloc(KMB_FIRE_BRIDGE + VN_MAX_CPUS * VN_SLOT_SIZE);
		if (!kept)
			return -ENOMEM;
	}
	mutex_lock(&kmb_lock);
	told = records[vnode].fire;
	if (told.state == KMB_F_ARMED && !armed[vnode])
		memset(&told, 0, sizeof(told));
	told.vnode = vnode;
	told.data = data;
	room = min3(room, told.size, (u64)KMB_FIRE_BRIDGE + VN_MAX_CPUS * VN_SLOT_SIZE);
	if (kept)
		memcpy(kept, records[vnode].kept, room);
	mutex_unlock(&kmb_lock);
	if ((kept && copy_to_user(u64_to_user_ptr(data), kept, room)) ||
	    copy_to_user(p, &told, sizeof(told)))
		rc = -EFAULT;
	vfree(kept);
	return rc;
}

int kmb_settle(u32 vnode)
{
	if (vnode == 0 || vnode >= VN_MAX_VNODES)
		return -EINVAL;
	if (records[vnode].fire.state != KMB_F_ARMED)
		forget(&records[vnode]);
	return 0;
}

void kmb_arm_exit(void)
{
	u32 i;

	for (i = 1; i < VN_MAX_VNODES; i++) {
		kmb_disarm(i);
		forget(&records[i]);
	}
}
