// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KMB_CLEAR and KMB_PUT_BACK write much memory.  They take a while, so they do
 * not hold kmb_lock, which a failover needs; instead no vnode starts on memory
 * that is being written.
 */
#include "kmb.h"

#include <linux/io.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define CHUNK	0x2000000ULL	/* mapped at a time to be zeroed */
#define STEP	0x10000		/* zeroed at a time: 0.1 ms, some 2 ms where pages are new to a host */

/**
 * struct writer - what one of them is at
 * @alone: one call at a time; taken before kmb_lock
 * @at: the memory, size 0 = none; guarded by kmb_lock
 */
struct writer {
	struct mutex alone;
	struct kmb_range at;
};

static struct writer clearer = { .alone = __MUTEX_INITIALIZER(clearer.alone) };
static struct writer restorer = { .alone = __MUTEX_INITIALIZER(restorer.alone) };

static bool writes(const struct writer *w, u64 base, u64 size)
{
	return w->at.size && kmb_overlap(base, size, w->at.base, w->at.size);
}

bool kmb_bulk_busy(u64 base, u64 size)
{
	return writes(&clearer, base, size) || writes(&restorer, base, size);
}

static int begin(struct writer *w, const struct kmb_range *range)
{
	int rc = 0;

	if (mutex_lock_interruptible(&w->alone))
		return -EINTR;
	mutex_lock(&kmb_lock);
	if (kmb_vnode_running_in(range->base, range->size) ||
	    kmb_bulk_busy(range->base, range->size)) {
		rc = -EBUSY;
	} else {
		w->at = *range;
		kmb_disarm_memory(range->base, range->size, 0);
	}
	mutex_unlock(&kmb_lock);
	if (rc)
		mutex_unlock(&w->alone);
	return rc;
}

static void end(struct writer *w)
{
	mutex_lock(&kmb_lock);
	w->at.size = 0;
	mutex_unlock(&kmb_lock);
	mutex_unlock(&w->alone);
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
	rc = begin(&clearer, range);
	if (rc)
		return rc;
	rc = zero(range->base, range->size);
	end(&clearer);
	return rc;
}

/* memcmp() goes by bytes on kernels before 5.14. */
static bool same_page(const u64 *a, const u64 *b)
{
	const u64 *stop = a + PAGE_SIZE / sizeof(*a);

	for (; a < stop; a += 4, b += 4)
		if ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]))
			return false;
	return true;
}

static u64 put_pages(void *to, const void *from, u64 size)
{
	u64 at, written = 0;

	for (at = 0; at < size; at += PAGE_SIZE) {
		if (!same_page(to + at, from + at)) {
			memcpy(to + at, from + at, PAGE_SIZE);
			written++;
		}
		if (!(at % STEP))
			cond_resched();
	}
	return written;
}

static bool fits(u64 at, u64 size, u64 room)
{
	return PAGE_ALIGNED(at | size) && at <= room && size <= room - at;
}

static int put_spans(struct kmb_put_back *p, const struct kmb_span *span)
{
	void *to = memremap(p->to_base, p->to_size, MEMREMAP_WB);
	void *from = memremap(p->from_base, p->from_size, MEMREMAP_WB);
	int rc = to && from ? 0 : -ENOMEM;
	u32 i;

	for (i = 0; !rc && i < p->nspans; i++) {
		p->written += put_pages(to + span[i].to, from + span[i].source, span[i].size);
		if (fatal_signal_pending(current))
			rc = -EINTR;
	}
	if (to)
		memunmap(to);
	if (from)
		memunmap(from);
	return rc;
}

int kmb_put_back(struct kmb_put_back *p)
{
	struct kmb_range to = { .base = p->to_base, .size = p->to_size };
	struct kmb_span *span;
	int rc = 0;
	u32 i;

	if (p->reserved || p->written || !p->nspans || p->nspans > KMB_MAX_SPANS ||
	    !PAGE_ALIGNED(to.base | to.size | p->from_base | p->from_size))
		return -EINVAL;
	if (!kmb_memory_region(to.base, to.size) ||
	    !kmb_memory_region(p->from_base, p->from_size))
		return -EPERM;
	if (kmb_overlap(to.base, to.size, p->from_base, p->from_size))
		return -EINVAL;
	span = vmemdup_user(u64_to_user_ptr(p->spans), p->nspans * sizeof(*span));
	if (IS_ERR(span))
		return PTR_ERR(span);
	for (i = 0; i < p->nspans; i++)
		if (!fits(span[i].to, span[i].size, to.size) ||
		    !fits(span[i].source, span[i].size, p->from_size))
			rc = -EINVAL;
	if (!rc)
		rc = begin(&restorer, &to);
	if (!rc) {
		rc = put_spans(p, span);
		end(&restorer);
	}
	kvfree(span);
	return rc;
}
