// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of memory: stacks, lists, slabs, pages that are not what they were taken for. */
#include "faults.h"

#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

static const unsigned long rodata = 0xAA55AA55;
static unsigned long ro_after_init __ro_after_init = 0x55AA5500;
static void *kept;
static u8 data_area[64] __aligned(64) = { 0xc3 };	/* ret */
static const u8 rodata_area[64] __aligned(64) = { 0xc3 };

FAULT(ACCESS_NULL)
{
	ROOM();
	READ_ONCE(*(int *)hidden(8));
}

/* No canonical address: a general protection fault */
FAULT(WILD_READ)
{
	ROOM();
	READ_ONCE(*(int *)hidden(0x6b6b6b6b6b6b6b6b));
}

/* The hole below the vmalloc area */
FAULT(WILD_WRITE)
{
	ROOM();
	WRITE_ONCE(*(int *)hidden(0xffffc7fffff00000), 1);
}

FAULT(WRITE_RO)
{
	ROOM();
	WRITE_ONCE(*(unsigned long *)hidden((unsigned long)&rodata), 0xabcd1234);
}

FAULT(WRITE_RO_AFTER_INIT)
{
	ROOM();
	WRITE_ONCE(*(unsigned long *)hidden((unsigned long)&ro_after_init), 0xabcd1234);
}

FAULT(WRITE_KERN)
{
	ROOM();
	WRITE_ONCE(*(u8 *)hidden((unsigned long)vfree), 0xcc);
}

static void noinline __attribute__((__noipa__)) execute(void *where)
{
	void (*call)(void) = where;

	OPTIMIZER_HIDE_VAR(call);
	ROOM();
	call();
	barrier();
}

FAULT(EXEC_DATA)
{
	execute(data_area);
	barrier();
}

FAULT(EXEC_RODATA)
{
	execute((void *)rodata_area);
	barrier();
}

FAULT(EXEC_STACK)
{
	u8 area[64] = { 0xc3 };

	OPTIMIZER_HIDE_VAR(area[0]);
	execute(area);
	barrier();
}

FAULT(EXEC_KMALLOC)
{
	u8 *area = kmalloc(64, GFP_KERNEL);

	memset(area, 0xc3, 64);
	execute(area);
	barrier();
}

FAULT(EXEC_VMALLOC)
{
	u8 *area = vmalloc(64);

	memset(area, 0xc3, 64);
	execute(area);
	barrier();
}

FAULT(EXEC_NULL)
{
	execute(NULL);
	barrier();
}

static noinline __attribute__((__noipa__)) int recurse(int depth)
{
	volatile char room[512];

	room[0] = depth;
	if (depth < 0)
		return 0;
	return recurse(depth + 1) + room[0];
}

FAULT(EXHAUST_STACK)
{
	recurse(0);
	barrier();
}

static noinline __attribute__((__noipa__)) void overrun(char *area, size_t size)
{
	memset(hidden((unsigned long)area), 'a', size);
	barrier();
}

/* Past the canary, which is checked on return */
FAULT(CORRUPT_STACK)
{
	char area[8] __aligned(8);

	overrun(area, 48);
}

FAULT(STACK_GUARD_PAGE_LEADING)
{
	ROOM();
	READ_ONCE(*(u8 *)hidden((unsigned long)task_stack_page(current) - 1));
}

FAULT(STACK_GUARD_PAGE_TRAILING)
{
	ROOM();
	READ_ONCE(*(u8 *)hidden((unsigned long)task_stack_page(current) + THREAD_SIZE));
}

struct item {
	struct list_head node;
};

FAULT(CORRUPT_LIST_ADD)
{
	LIST_HEAD(head);
	struct item good, bad;

	list_add(&good.node, &head);
	head.next = hidden((unsigned long)&head);
	list_add(&bad.node, &head);
	barrier();
}

FAULT(CORRUPT_LIST_DEL)
{
	LIST_HEAD(head);
	struct item one;

	list_add(&one.node, &head);
	one.node.next = hidden((unsigned long)&one.node);
	list_del(&one.node);
	barrier();
}

FAULT(VMALLOC_LINEAR_OVERFLOW)
{
	char *area = vzalloc(PAGE_SIZE);

	overrun(area, PAGE_SIZE + 64);
	vfree(area);
}

FAULT(SLAB_LINEAR_OVERFLOW)
{
	char *area = kmalloc(1020, GFP_KERNEL);
	int i;

	overrun(area, 4096);	/* the objects behind it, and their free pointers */
	for (i = 0; i < 64; i++)
		WRITE_ONCE(kept, kmalloc(1020, GFP_KERNEL));
}

FAULT(WRITE_AFTER_FREE)
{
	unsigned long *area = kmalloc(1024, GFP_KERNEL);
	int i;

	kfree(area);
	overrun((char *)area, 1024);
	for (i = 0; i < 64; i++)
		WRITE_ONCE(kept, kmalloc(1024, GFP_KERNEL));
}

/* A pointer out of an object that was freed and filled by somebody else */
FAULT(READ_AFTER_FREE)
{
	int ***area = kmalloc(256, GFP_KERNEL);

	kfree(area);
	overrun((char *)area, 256);
	ROOM();
	READ_ONCE(**(int **)hidden((unsigned long)READ_ONCE(area[4])));
}

FAULT(WRITE_BUDDY_AFTER_FREE)
{
	unsigned long page = __get_free_page(GFP_KERNEL);

	free_page(page);
	overrun((char *)page, PAGE_SIZE);
}

FAULT(SLAB_FREE_DOUBLE)
{
	struct kmem_cache *cache = kmem_cache_create("faults_double", 1024, 0, 0, NULL);
	int *object = kmem_cache_alloc(cache, GFP_KERNEL);

	kmem_cache_free(cache, object);
	OPTIMIZER_HIDE_VAR(object);
	kmem_cache_free(cache, object);
	barrier();
}

FAULT(SLAB_FREE_CROSS)
{
	struct kmem_cache *one = kmem_cache_create("faults_a", 1032, 0, 0, NULL);
	struct kmem_cache *other = kmem_cache_create("faults_b", 2056, 0, 0, NULL);

	kmem_cache_free(other, kmem_cache_alloc(one, GFP_KERNEL));
	barrier();
}

FAULT(SLAB_FREE_PAGE)
{
	struct kmem_cache *cache = kmem_cache_create("faults_a", 1032, 0, 0, NULL);

	kmem_cache_free(cache, (void *)__get_free_page(GFP_KERNEL));
	barrier();
}

FAULT(REFCOUNT_ADD_OVERFLOW)
{
	refcount_t count = REFCOUNT_INIT(INT_MAX);

	refcount_inc(&count);
	barrier();
}

FAULT(REFCOUNT_SUB_AND_TEST_NEGATIVE)
{
	refcount_t count = REFCOUNT_INIT(1);

	if (refcount_sub_and_test(3, &count))
		barrier();
}

/* Hardened user copies refuse the kernel's text. */
FAULT(USERCOPY_KERNEL)
{
	size_t n = PAGE_SIZE;

	OPTIMIZER_HIDE_VAR(n);
	if (copy_to_user((void __user *)current->mm->start_stack, hidden((unsigned long)vfree), n))
		barrier();
}

/* All memory, a page at a time; the kernel is to panic by its sysctl. */
FAULT(OOM)
{
	while (alloc_page(GFP_KERNEL))
		cond_resched();
}

const struct fault faults_memory[] = {
	ENTRY(ACCESS_NULL), ENTRY(WILD_READ), ENTRY(WILD_WRITE), ENTRY(WRITE_RO),
	ENTRY(WRITE_RO_AFTER_INIT), ENTRY(WRITE_KERN), ENTRY(EXEC_DATA), ENTRY(EXEC_RODATA),
	ENTRY(EXEC_STACK), ENTRY(EXEC_KMALLOC), ENTRY(EXEC_VMALLOC), ENTRY(EXEC_NULL),
	ENTRY(EXHAUST_STACK), ENTRY(CORRUPT_STACK), ENTRY(STACK_GUARD_PAGE_LEADING),
	ENTRY(STACK_GUARD_PAGE_TRAILING), ENTRY(CORRUPT_LIST_ADD), ENTRY(CORRUPT_LIST_DEL),
	ENTRY(VMALLOC_LINEAR_OVERFLOW), ENTRY(SLAB_LINEAR_OVERFLOW), ENTRY(WRITE_AFTER_FREE),
	ENTRY(READ_AFTER_FREE), ENTRY(WRITE_BUDDY_AFTER_FREE), ENTRY(SLAB_FREE_DOUBLE),
	ENTRY(SLAB_FREE_CROSS), ENTRY(SLAB_FREE_PAGE), ENTRY(REFCOUNT_ADD_OVERFLOW),
	ENTRY(REFCOUNT_SUB_AND_TEST_NEGATIVE), ENTRY(USERCOPY_KERNEL), ENTRY(OOM), {}
};
