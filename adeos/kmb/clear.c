// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KMB_CLEAR: zeroes granted memory.  It takes a while, so it does not hold
 * kmb_lock, which a failover needs; instead no vnode starts on memory that is
 * being cleared.
 */
#include "kmb.h"

#include <linux/io.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#define CHUNK	0x2000000ULL	/* mapped at a time */
#define STEP	0x10000		/* zeroed at a time: 0.1 ms, some 2 ms where pages are new to a host */

static DEFINE_MUTEX(clear_lock);	/* one at a time; taken before kmb_lock */
static struct kmb_range clearing;	/* guarded by kmb_lock */

bool kmb_clear_busy(u64 base, u64 size)
{
	return clearing.size &&
	       kmb_overlap(base, size, clearing.base, clearing.size);
}

static int claim_range(const struct kmb_range *range)
{
	int rc = 0;

	mutex_lock(&kmb_lock);
	if (kmb_vnode_running_in(range->base, range->size))
		rc = -EBUSY;
	else
		clearing = *range;
	if (!rc)
		kmb_disarm_memory(range->base, range->size, 0);
	mutex_unlock(&kmb_lock);
	return rc;
}

/* memset() may be rep stos, which takes twice as long under emulation. */
static void zero_mapped(u64 *p, u64 size)
{
	u64 *end = p + size / sizeof(*p);

	for (; p < end; p += 8) {
		WRITE_ONCE(p[0], 0);
		WRITE_ONCE(p[1], 0);
		WRITE_ONCE(p[2], 0);
		WRITE_ONCE(p[3], 0);
		WRITE_ONCE(p[4], 0);
		WRITE_ONCE(p[5], 0);
		WRITE_ONCE(p[6], 0);
		WRITE_ONCE(p[7], 0);
	}
}

static int zero(u64 base, u64 size)
{
	while (size) {
		u64 n = min(size, CHUNK), done;
		void *p = memremap(base, n, MEMREMAP_WB);

		if (!p)
			return -ENOMEM;
		for (done = 0; done < n; done += STEP) {
			zero_mapped(p + done, min_t(u64, n - done, STEP));
			cond_resched();
		}
		memunmap(p);
		base += n;
		size -= n;
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

int kmb_clear(const struct kmb_range *range)
{
	int rc;

	if (!PAGE_ALIGNED(range->base | range->size))
		return -EINVAL;
	if (!kmb_memory_region(range->base, range->size) &&
	    !kmb_memory_slot(range->base, range->size))
		return -EPERM;
	if (mutex_lock_interruptible(&clear_lock))
		return -EINTR;
	rc = claim_range(range);
	if (!rc) {
		rc = zero(range->base, range->size);
		mutex_lock(&kmb_lock);
		clearing.size = 0;
		mutex_unlock(&kmb_lock);
	}
	mutex_unlock(&clear_lock);
	return rc;
}
