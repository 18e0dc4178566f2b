// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The memory given to vnodes: parameters mem= and low=, checked once at load.
 * The root must not use it itself: either it was reserved at boot with
 * memmap=SIZE$BASE, or its blocks were taken offline.  Those stay offline while
 * this module is loaded.  Below 1 MiB there is nothing to take offline: since
 * 5.13 the kernel keeps all of it reserved and uses little.
 */
#include "kmb.h"

#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/string.h>

#define LOW_MIN	0x10000
#define LOW_END	0xa0000
#define LOW_KEPT	0x10000	/* at the end of low RAM: there lies the root's own start-up code */

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
	return size && kmb_within(base, size, r->base, r->size);
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

/* Offline memory stays System RAM in the resource tree. */
static bool __init is_used(const struct kmb_range *r)
{
	unsigned long pfn, end = PHYS_PFN(r->base + r->size);

	if (!is_system_ram(r))
		return false;
	for (pfn = PHYS_PFN(r->base); pfn < end; pfn = ALIGN(pfn + 1, PAGES_PER_SECTION))
		if (pfn_to_online_page(pfn))
			return true;
	return false;
}

static int __init find_low_end(struct resource *r, void *end)
{
	*(u64 *)end = r->end + 1;
	return 0;
}

/*
 * The start-up code of the root's CPUs is the last thing that the kernel takes
 * of low RAM, from its end (reserve_real_mode(), arch/x86/realmode/init.c).
 */
static bool __init is_low_used(const struct kmb_range *r)
{
	unsigned long pfn, last = PHYS_PFN(r->base + r->size);
	u64 end = 0;

	if (!is_system_ram(r))
		return false;
	walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY, 0,
			    LOW_END - 1, &end, find_low_end);
	if (r->base + r->size + LOW_KEPT > end)
		return true;
	for (pfn = PHYS_PFN(r->base); pfn < last; pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (page && !PageReserved(page))
			return true;
	}
	return false;
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
	/* from here on hotplug() refuses, so what is found offline stays so */
	ranges[nranges++] = *r;
	if (is_used(r)) {
		pr_err("mem=: %#llx+%#llx is RAM of the root; take it offline, or boot with memmap=%#llx$%#llx\n",
		       r->base, r->size, r->size, r->base);
		return -EBUSY;
	}
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
	if (is_low_used(&r)) {
		pr_err("low=: %#llx+%#llx is RAM of the root; boot it with memmap=%#llx$%#llx\n",
		       r.base, r.size, r.size, r.base);
		return -EBUSY;
	}
	low_range = r;
	return 0;
}

static int hotplug(struct notifier_block *block, unsigned long event, void *data)
{
	const struct memory_notify *m = data;
	struct kmb_range r = {
		.base = PFN_PHYS((u64)m->start_pfn),
		.size = PFN_PHYS((u64)m->nr_pages),
	};

	if (event != MEM_GOING_ONLINE || !kmb_memory_given(&r))
		return NOTIFY_OK;
	pr_warn("memory %#llx+%#llx stays offline: it is given to vnodes\n", r.base, r.size);
	return notifier_from_errno(-EBUSY);
}

static struct notifier_block hotplug_block = {
	.notifier_call = hotplug,
};

int __init kmb_memory_init(void)
{
	int rc = register_memory_notifier(&hotplug_block);

	if (rc)
		return rc;
	rc = parse_mem();
	if (!rc)
		rc = parse_low();
	if (rc) {
		kmb_memory_exit();
		return rc;
	}
	root_pa = ranges[0].base;
	ranges[0].base += VN_ROOT_SIZE;
	ranges[0].size -= VN_ROOT_SIZE;
	return 0;
}

void kmb_memory_exit(void)
{
	unregister_memory_notifier(&hotplug_block);
}

bool kmb_memory_given(struct kmb_range *r)
{
	u32 i;

	for (i = 0; i < nranges; i++) {
		struct kmb_range given = ranges[i];

		if (i == 0 && root_pa) {
			given.base -= VN_ROOT_SIZE;
			given.size += VN_ROOT_SIZE;
		}
		if (kmb_overlap(r->base, r->size, given.base, given.size)) {
			*r = given;
			return true;
		}
	}
	return false;
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
