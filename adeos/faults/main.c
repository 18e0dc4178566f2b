// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnode_faults.ko: a vnode's kernel fails on purpose, for tests alone.
 *
 *	insmod vnode_faults.ko i_know_this_crashes=1
 *	cat /dev/vnode_faults			the names
 *	echo PANIC >/dev/vnode_faults
 *
 * It needs no vnode and knows no agent.  Limit: what runs is what the names
 * say; nothing writes to memory or ports outside its own kernel, unless
 * outside= is given (outside.c).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "faults.h"

#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/objtool.h>
#include <linux/panic.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

static bool i_know_this_crashes;
module_param(i_know_this_crashes, bool, 0);
MODULE_PARM_DESC(i_know_this_crashes, "without it the module does not load");

FAULT(PANIC)
{
	panic("dumptest");
}

FAULT(BUG)
{
	ROOM();
	BUG();
}

FAULT(WARNING)
{
	ROOM();
	WARN_ON(true);
}

FAULT(WARNING_MESSAGE)
{
	ROOM();
	WARN(true, "Warning message trigger\n");
}

FAULT(EXCEPTION)
{
	ROOM();
	WRITE_ONCE(*(int *)hidden(0), 0);
}

FAULT(DIVIDE_ERROR)
{
	ROOM();
	asm volatile("xor %%edx, %%edx; xor %%ecx, %%ecx; mov $1, %%eax; div %%ecx"
		     ::: "eax", "ecx", "edx", "cc");
}

FAULT(INVALID_OPCODE)
{
	ROOM();
	asm volatile(".byte 0xf0, 0x90"); /* lock nop */
}

/* The processor cannot even push the frame of the page fault. */
FAULT(DOUBLE_FAULT)
{
	ROOM();
	asm volatile("mov %0, %%rsp; push %%rax" :: "r" (hidden(0xffffc7ffffff0000)) : "memory");
}
STACK_FRAME_NON_STANDARD(fault_DOUBLE_FAULT);

const struct fault faults_plain[] = {
	ENTRY(PANIC), ENTRY(BUG), ENTRY(WARNING), ENTRY(WARNING_MESSAGE), ENTRY(EXCEPTION),
	ENTRY(DIVIDE_ERROR), ENTRY(INVALID_OPCODE), ENTRY(DOUBLE_FAULT), {}
};

static const struct fault *const tables[] = {
	faults_plain, faults_memory, faults_hang, faults_points
};

static const struct fault *find(const char *name)
{
	const struct fault *f;
	int i;

	for (i = 0; i < ARRAY_SIZE(tables); i++)
		for (f = tables[i]; f->name; f++)
			if (!strcmp(f->name, name))
				return f;
	for (f = faults_outside; outside && f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	return NULL;
}

static ssize_t trigger(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	const struct fault *f;
	char name[40] = "";

	if (count >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, buf, count))
		return -EFAULT;
	f = find(strim(name));
	if (!f)
		return -EINVAL;
	pr_info("%s\n", f->name);
	f->run();
	pr_info("%s came back\n", f->name);
	return count;
}

static ssize_t names(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	char *text = kzalloc(PAGE_SIZE, GFP_KERNEL);
	const struct fault *f;
	size_t n = 0;
	ssize_t rc;
	int i;

	if (!text)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(tables); i++)
		for (f = tables[i]; f->name; f++)
			n += scnprintf(text + n, PAGE_SIZE - n, "%s\n", f->name);
	rc = simple_read_from_buffer(buf, count, pos, text, n);
	kfree(text);
	return rc;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.read = names,
	.write = trigger,
	.llseek = default_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vnode_faults",
	.fops = &operations,
	.mode = 0600,
};

static int __init faults_init(void)
{
	if (!i_know_this_crashes) {
		pr_err("this crashes the kernel: load it with i_know_this_crashes=1\n");
		return -EPERM;
	}
	return misc_register(&device);
}

module_init(faults_init);
MODULE_DESCRIPTION("Crashes the kernel in many ways, for tests");
MODULE_AUTHOR("vnode-debug");
MODULE_LICENSE("GPL");
