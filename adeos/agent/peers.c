// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which other vnodes this one may look at: the table at VN_BR_GRANTS, which
 * the root writes.  When it takes a grant back, or starts or moves the vnode,
 * what user space has mapped of it is taken away before the new word counts.
 *
 * Limits: this kernel could map any memory by itself; the table keeps honest
 * user space away from memory that is another's by now.
 */
#include "peers.h"

#include <linux/bitops.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <asm/processor.h>

#define TRIES		100	/* of 1 ms: the root's daemon may be interrupted */
#define LOW_MIN		0x10000
#define LOW_END		0xa0000

DEFINE_MUTEX(peers_lock);
LIST_HEAD(peers_files);
struct peer peers[VN_MAX_GRANTS];

/* guarded by peers_lock */
static struct vn_grants table;
static u64 generations;

static const struct vn_grants *written(void)
{
	return bridge_at(VN_BR_GRANTS);
}

/* One consistent state of the table, or none granted when it is written for ever. */
static void read_table(void)
{
	const struct vn_grants *from = written();
	u32 seq, i;

	for (i = 0; i < TRIES; i++) {
		seq = smp_load_acquire(&from->seq);
		if (!(seq & 1)) {
			memcpy(&table, from, sizeof(table));
			smp_rmb();
			if (READ_ONCE(from->seq) == seq) {
				table.seq = seq;
				return;
			}
		}
		usleep_range(1000, 2000);
	}
	pr_warn("the table of grants is being written for ever: none counts\n");
	memset(&table, 0, sizeof(table));
	table.seq = seq;
}

static bool overlap(u64 a, u64 asize, u64 b, u64 bsize)
{
	return a < b + bsize && b < a + asize;
}

/* Memory that this kernel does not use itself. */
bool peers_is_foreign(u64 base, u64 size)
{
	return region_intersects(base, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) ==
		       REGION_DISJOINT &&
	       !overlap(base, size, root_side->region_base, root_side->region_size) &&
	       !overlap(base, size, root_side->slot_base, root_side->slot_size);
}

static bool has_memory(const struct vn_status *s)
{
	return s->region_size && s->slot_size;
}

static bool is_valid_memory(const struct vn_status *s)
{
	u64 end = BIT_ULL(boot_cpu_data.x86_phys_bits);

	return IS_ALIGNED(s->region_base | s->region_size, VN_REGION_ALIGN) &&
	       s->region_size >= VN_REGION_MIN && s->region_size < end &&
	       s->region_base >= 0x100000 && s->region_base <= end - s->region_size &&
	       PAGE_ALIGNED(s->slot_base | s->slot_size) && s->slot_base >= LOW_MIN &&
	       s->slot_size >= VN_SLOT_SIZE && s->slot_size <= LOW_END &&
	       s->slot_base <= LOW_END - s->slot_size &&
	       peers_is_foreign(s->region_base, s->region_size) &&
	       peers_is_foreign(s->slot_base, s->slot_size);
}

static bool is_valid(const struct vn_status *s, u32 seen)
{
	return s->id && s->id < VN_MAX_VNODES && !(seen & BIT(s->id)) &&
	       s->id != root_side->vnode_id && s->ncpus && s->ncpus <= VN_MAX_CPUS &&
	       (!has_memory(s) || is_valid_memory(s));
}

static bool same_memory(const struct peer *p, const struct vn_grant *g, const struct vn_status *s)
{
	return p->status.incarnation == s->incarnation &&
	       p->grant.start_tsc == g->start_tsc &&
	       p->status.region_base == s->region_base &&
	       p->status.region_size == s->region_size &&
	       p->status.slot_base == s->slot_base && p->status.slot_size == s->slot_size;
}

/* What user space has mapped of it shows zeros from now on: see peers_fault(). */
void peers_zap(u64 base, u64 size)
{
	struct peers_file *f;

	list_for_each_entry(f, &peers_files, list)
		unmap_mapping_range(f->file->f_mapping, base, size, 1);
}

static void take_memory(struct peer *p)
{
	if (!p->generation)
		return;
	p->generation = 0;
	peers_zap(p->status.region_base, p->status.region_size);
	peers_zap(p->status.slot_base, p->status.slot_size);
	memunmap(p->region);
	memunmap(p->slot);
	p->region = NULL;
	p->slot = NULL;
}

u64 peers_new_generation(void)
{
	return ++generations;
}

static void give_memory(struct peer *p)
{
	const struct vn_status *s = &p->status;

	if (!has_memory(s))
		return;
	p->region = memremap(s->region_base, s->region_size, MEMREMAP_WB);
	p->slot = memremap(s->slot_base, s->slot_size, MEMREMAP_WB);
	if (p->region && p->slot) {
		p->generation = peers_new_generation();
		return;
	}
	pr_err("vnode %u: no room to map its memory\n", p->id);
	if (p->region)
		memunmap(p->region);
	if (p->slot)
		memunmap(p->slot);
	p->region = NULL;
	p->slot = NULL;
}

static void drop(struct peer *p)
{
	take_memory(p);
	memset(p, 0, sizeof(*p));
}

static void adopt(const struct vn_grant *g, const struct vn_status *s)
{
	struct peer *p = peers_find(s->id);

	if (p && p->generation && same_memory(p, g, s)) {
		p->grant = *g;
		p->status = *s;
		return;
	}
	if (p)
		take_memory(p);
	else
		p = peers_find(0);
	p->id = s->id;
	p->grant = *g;
	p->status = *s;
	give_memory(p);
}

/* Before a new memory is given: an old one may be part of it. */
static void drop_others(u32 granted)
{
	u32 i;

	for (i = 0; i < VN_MAX_GRANTS; i++)
		if (peers[i].id && !(granted & BIT(peers[i].id)))
			drop(&peers[i]);
}

void peers_refresh(void)
{
	u32 n, i, granted = 0;
	bool valid[VN_MAX_GRANTS];

	if (smp_load_acquire(&written()->seq) == table.seq)
		return;
	read_table();
	n = min_t(u32, table.n, VN_MAX_GRANTS);
	for (i = 0; i < n; i++) {
		valid[i] = is_valid(&table.status[i], granted);
		if (valid[i])
			granted |= BIT(table.status[i].id);
		else
			pr_warn("grant %u of the root makes no sense: vnode %u\n", i,
				table.status[i].id);
	}
	drop_others(granted);
	for (i = 0; i < n; i++)
		if (valid[i])
			adopt(&table.grant[i], &table.status[i]);
	root_refresh(table.root_pa);
	WRITE_ONCE(vnode_side->grants_done, table.seq);
}

/* 0 finds an unused entry. */
struct peer *peers_find(u32 id)
{
	u32 i;

	for (i = 0; i < VN_MAX_GRANTS; i++)
		if (peers[i].id == id)
			return &peers[i];
	return NULL;
}

static bool within(u64 base, u64 size, u64 start, u64 length)
{
	return size && base >= start && size <= length && base - start <= length - size;
}

struct peer *peers_at(u64 base, u64 size)
{
	u32 i;

	for (i = 0; i < VN_MAX_GRANTS; i++) {
		const struct vn_status *s = &peers[i].status;

		if (peers[i].generation &&
		    (within(base, size, s->region_base, s->region_size) ||
		     within(base, size, s->slot_base, s->slot_size)))
			return &peers[i];
	}
	return NULL;
}

struct peer *peers_of_generation(u64 generation)
{
	u32 i;

	for (i = 0; i < VN_MAX_GRANTS; i++)
		if (generation && peers[i].generation == generation)
			return &peers[i];
	return NULL;
}

static void take_over(struct work_struct *work)
{
	mutex_lock(&peers_lock);
	peers_refresh();
	mutex_unlock(&peers_lock);
}

static DECLARE_WORK(refresh_work, take_over);

/* From the doorbell, which rings for other reasons too. */
void peers_poll(void)
{
	if (READ_ONCE(written()->seq) != READ_ONCE(table.seq))
		queue_work(system_highpri_wq, &refresh_work);
}

int peers_init(void)
{
	peers_poll();
	return peers_device_init();
}
