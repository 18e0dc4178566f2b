// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The root's own memory, for the vnode that is its successor: the root bridge,
 * and the RAM that kmb.ko lists there in struct vn_last.  Read-only, like all
 * of /dev/vnode-peers.
 *
 * Nothing here asks the root: it may be dead.
 */
#include "peers.h"

#include <linux/bitops.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <asm/processor.h>

/* What is granted, and our mappings of it, which keep user space's at write-back */
struct part {
	u64 base;
	u64 size;
	void *map;
};

/* guarded by peers_lock; the first part is the root bridge */
static struct part parts[1 + VN_LAST_RANGES];
static u32 nparts;
static u64 own_generation;

static bool is_valid_part(u64 base, u64 size)
{
	u64 end = BIT_ULL(boot_cpu_data.x86_phys_bits);

	return size && PAGE_ALIGNED(base | size) && size < end && base <= end - size &&
	       peers_is_foreign(base, size);
}

static void take_all(void)
{
	u32 i;

	own_generation = 0;
	for (i = 0; i < nparts; i++) {
		peers_zap(parts[i].base, parts[i].size);
		memunmap(parts[i].map);
	}
	nparts = 0;
}

static bool add(u64 base, u64 size)
{
	struct part *p = &parts[nparts];

	if (!is_valid_part(base, size)) {
		pr_warn("RAM of the root at %#llx+%#llx makes no sense\n", base, size);
		return false;
	}
	p->map = memremap(base, size, MEMREMAP_WB);
	if (!p->map) {
		pr_err("no room to map the root's RAM at %#llx+%#llx\n", base, size);
		return false;
	}
	p->base = base;
	p->size = size;
	nparts++;
	return true;
}

/* A copy: what is checked is what is used. */
static bool read_last(u64 pa, struct vn_last *copy)
{
	void *from;

	if (!is_valid_part(pa, VN_ROOT_SIZE))
		return false;
	from = memremap(pa + VN_ROOT_LAST, sizeof(*copy), MEMREMAP_WB);
	if (!from)
		return false;
	memcpy(copy, from, sizeof(*copy));
	memunmap(from);
	return copy->magic == VN_LAST_MAGIC && copy->abi == VN_ABI_VERSION &&
	       copy->nranges <= VN_LAST_RANGES;
}

static bool is_known(u64 pa, const struct vn_last *now)
{
	u32 i;

	if (!own_generation || parts[0].base != pa || nparts != 1 + now->nranges)
		return false;
	for (i = 0; i < now->nranges; i++)
		if (parts[1 + i].base != now->range[i].base ||
		    parts[1 + i].size != now->range[i].size)
			return false;
	return true;
}

void root_refresh(u64 pa)
{
	struct vn_last now;
	u32 i;

	if (!pa) {
		take_all();
		return;
	}
	if (!read_last(pa, &now)) {
		pr_warn("the root's grant of itself makes no sense: bridge at %#llx\n", pa);
		take_all();
		return;
	}
	if (is_known(pa, &now))
		return;
	take_all();
	if (!add(pa, VN_ROOT_SIZE))
		return;
	for (i = 0; i < now.nranges; i++)
		add(now.range[i].base, now.range[i].size);
	own_generation = peers_new_generation();
	pr_info("this vnode succeeds the root: %u ranges of its RAM are seen\n", nparts - 1);
}

u64 root_pa(void)
{
	return own_generation ? parts[0].base : 0;
}

u64 root_at(u64 base, u64 size)
{
	u32 i;

	for (i = 0; i < nparts; i++)
		if (size && base >= parts[i].base && size <= parts[i].size &&
		    base - parts[i].base <= parts[i].size - size)
			return own_generation;
	return 0;
}

bool root_is_generation(u64 generation)
{
	return generation && own_generation == generation;
}
