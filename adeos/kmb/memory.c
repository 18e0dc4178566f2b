// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The memory given to vnodes: parameters mem= and low=, checked once at load.
 * The root must not use it itself: reserve it with memmap=SIZE$BASE.
 */
#include "kmb.h"

#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/string.h>

#define LOW_MIN	0x10000
#define LOW_END	0xa0000

static char *mem;
module_param(mem, charp, 0444);
MODULE_PARM_DESC(mem, "memory for vnodes: BASE+SIZE[,BASE+SIZE...], 2 MiB aligned, e.g. 0x38000000+1G");
static char *low;
module_param(low, charp, 0444);
MODULE_PARM_DESC(low, "memory below 640 KiB for start-up slots: BASE+SIZE, 4 KiB aligned");

static struct kmb_range ranges[KMB_MAX_RANGES];
static u32 nranges;
static struct kmb_range low_range;
static u64 root_pa;

static bool within(const struct kmb_range *r, u64 base, u64 size)
{
	return size && base >= r->base && size <= r->size &&
	       base - r->base <= r->size - size;
}

static bool __init parse_range(char **text, struct kmb_range *r)
{
	char *end;

	r->base = memparse(*text, &end);
	if (end == *text || *end != '+')
		return false;
	*text = end + 1;
	r->size = memparse(*text, &end);
	if (end == *text || !r->size || r->base + r->size < r->base)
		return false;
	*text = end;
	return true;
}

static bool __init is_system_ram(const struct kmb_range *r)
{
	return region_intersects(r->base, r->size, IORESOURCE_SYSTEM_RAM,
				 IORES_DESC_NONE) != REGION_DISJOINT;
}

static int __init grant(const struct kmb_range *r)
{
	u32 i;

	if (nranges == KMB_MAX_RANGES) {
		pr_err("mem=: more than %d ranges\n", KMB_MAX_RANGES);
		return -EINVAL;
	}
	if (!IS_ALIGNED(r->base | r->size, VN_REGION_ALIGN)) {
		pr_err("mem=: %#llx+%#llx is not aligned to 2 MiB\n", r->base, r->size);
		return -EINVAL;
	}
	if (r->base < 0x100000) {
		pr_err("mem=: %#llx is below 1 MiB\n", r->base);
		return -EINVAL;
	}
	for (i = 0; i < nranges; i++) {
		if (kmb_overlap(r->base, r->size, ranges[i].base, ranges[i].size)) {
			pr_err("mem=: %#llx+%#llx overlaps another range\n", r->base, r->size);
			return -EINVAL;
		}
	}
	if (is_system_ram(r)) {
		pr_err("mem=: %#llx+%#llx is RAM of the root; boot it with memmap=%#llx$%#llx\n",
		       r->base, r->size, r->size, r->base);
		return -EBUSY;
	}
	ranges[nranges++] = *r;
	return 0;
}

static int __init parse_mem(void)
{
	char *text = mem;
	struct kmb_range r;
	int rc;

	while (text && *text) {
		if (!parse_range(&text, &r) || (*text && *text != ',')) {
			pr_err("mem=: \"%s\" is not BASE+SIZE[,BASE+SIZE...]\n", mem);
			return -EINVAL;
		}
		rc = grant(&r);
		if (rc)
			return rc;
		if (*text)
			text++;
	}
	if (!nranges) {
		pr_err("mem= is missing: which memory is for vnodes?\n");
		return -EINVAL;
	}
	if (ranges[0].size < VN_ROOT_SIZE + VN_REGION_MIN) {
		pr_err("mem=: the first range is smaller than %#x\n",
		       VN_ROOT_SIZE + VN_REGION_MIN);
		return -EINVAL;
	}
	return 0;
}

static int __init parse_low(void)
{
	char *text = low;
	struct kmb_range r;

	if (!text || !parse_range(&text, &r) || *text) {
		pr_err("low=: \"%s\" is not BASE+SIZE\n", low ?: "");
		return -EINVAL;
	}
	if (!PAGE_ALIGNED(r.base | r.size) || r.base < LOW_MIN ||
	    r.base + r.size > LOW_END) {
		pr_err("low=: %#llx+%#llx is not page aligned within %#x..%#x\n",
		       r.base, r.size, LOW_MIN, LOW_END);
		return -EINVAL;
	}
	if (is_system_ram(&r)) {
		pr_err("low=: %#llx+%#llx is RAM of the root; boot it with memmap=%#llx$%#llx\n",
		       r.base, r.size, r.size, r.base);
		return -EBUSY;
	}
	low_range = r;
	return 0;
}

int __init kmb_memory_init(void)
{
	int rc = parse_mem();

	if (!rc)
		rc = parse_low();
	if (rc)
		return rc;
	root_pa = ranges[0].base;
	ranges[0].base += VN_ROOT_SIZE;
	ranges[0].size -= VN_ROOT_SIZE;
	return 0;
}

void kmb_memory_info(struct vn_root_info *info)
{
	u32 i;

	info->nranges = nranges;
	info->low_base = low_range.base;
	info->low_size = low_range.size;
	info->root_pa = root_pa;
	for (i = 0; i < nranges; i++) {
		info->range[i].base = ranges[i].base;
		info->range[i].size = ranges[i].size;
	}
}

bool kmb_memory_region(u64 base, u64 size)
{
	u32 i;

	for (i = 0; i < nranges; i++)
		if (within(&ranges[i], base, size))
			return true;
	return false;
}

bool kmb_memory_slot(u64 base, u64 size)
{
	return within(&low_range, base, size);
}

bool kmb_memory_mappable(u64 base, u64 size)
{
	struct kmb_range first = {
		.base = root_pa,
		.size = ranges[0].size + VN_ROOT_SIZE,
	};

	return within(&first, base, size) || kmb_memory_region(base, size) ||
	       kmb_memory_slot(base, size);
}
