// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/kmb.  Anybody who may open it observes; one open file at a time, the
 * owner, acts.  Ownership ends with the last descriptor and mapping of that
 * file; the vnodes run on.
 */
#include "kmb.h"

#include <linux/compat.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "vn_lapic.h"

/**
 * struct reader - one open file
 * @lock: one read() at a time
 * @seen: rings of each vnode that it has read
 */
struct reader {
	struct mutex lock;
	u32 seen[VN_MAX_VNODES];
};

/* Room for the argument of any ioctl */
union argument {
	struct kmb_cpus cpus;
	struct kmb_bind bind;
	struct kmb_start start;
	struct kmb_resume resume;
	struct kmb_park park;
	struct kmb_ipi ipi;
	struct kmb_range range;
	struct kmb_control control;
	struct kmb_poke poke;
	struct kmb_break breakpoint;
	u32 vnode;	/* also the first member of all that name one */
};

static int do_cpus(struct file *file, union argument *a)
{
	memset(&a->cpus, 0, sizeof(a->cpus));
	kmb_cpus_list(&a->cpus);
	return 0;
}

static int do_claim(struct file *file, union argument *a)
{
	return kmb_owner_claim(file);
}

static int do_bind(struct file *file, union argument *a)
{
	return kmb_vnode_bind(&a->bind);
}

static int do_unbind(struct file *file, union argument *a)
{
	return kmb_vnode_unbind(a->vnode);
}

static int do_query(struct file *file, union argument *a)
{
	return kmb_vnode_query(&a->bind);
}

static int do_start(struct file *file, union argument *a)
{
	return kmb_vnode_start(&a->start);
}

static int do_resume(struct file *file, union argument *a)
{
	return kmb_vnode_resume(&a->resume);
}

static int do_park(struct file *file, union argument *a)
{
	return kmb_vnode_park(&a->park);
}

static int do_nmi(struct file *file, union argument *a)
{
	return kmb_vnode_interrupt(&a->ipi, true);
}

static int do_ipi(struct file *file, union argument *a)
{
	return kmb_vnode_interrupt(&a->ipi, false);
}

static int do_control(struct file *file, union argument *a)
{
	return kmb_control(file, &a->control);
}

static int do_poke(struct file *file, union argument *a)
{
	return kmb_control_poke(&a->poke);
}

static int do_break(struct file *file, union argument *a)
{
	return kmb_control_break(&a->breakpoint);
}

static int do_disarm(struct file *file, union argument *a)
{
	kmb_disarm(a->vnode);
	return 0;
}

static int do_settle(struct file *file, union argument *a)
{
	return kmb_settle(a->vnode);
}

static int do_successor(struct file *file, union argument *a)
{
	return kmb_last_successor(a->vnode);
}

enum { OWNER = 0, HOLDER = 1, ANYBODY = 2 };

/*
 * @who: OWNER alone, HOLDER of the vnode's control alone (or both), ANYBODY
 * @waits: for the CPUs of the vnode it names, without kmb_lock, or must not come
 *	between: one such call a vnode
 */
static const struct command {
	unsigned int number;
	int (*run)(struct file *file, union argument *a);
	unsigned int who;
	bool waits;
} commands[] = {
	{ KMB_CPUS, do_cpus, ANYBODY },
	{ KMB_QUERY, do_query, ANYBODY },
	{ KMB_CLAIM, do_claim, ANYBODY },
	{ KMB_BIND, do_bind, OWNER, true },
	{ KMB_UNBIND, do_unbind, OWNER, true },
	{ KMB_START, do_start, OWNER, true },
	{ KMB_RESUME, do_resume, OWNER, true },
	{ KMB_PARK, do_park, OWNER, true },
	{ KMB_NMI, do_nmi, HOLDER },
	{ KMB_IPI, do_ipi, OWNER },
	{ KMB_CONTROL, do_control, ANYBODY },
	{ KMB_POKE, do_poke, HOLDER },
	{ KMB_BREAK, do_break, HOLDER },
	{ KMB_SUCCESSOR, do_successor, OWNER },
	{ KMB_DISARM, do_disarm, OWNER },
	{ KMB_SETTLE, do_settle, OWNER },
};

static const struct command *find_command(unsigned int number)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].number == number)
			return &commands[i];
	return NULL;
}

/* The owner needs no control to send an NMI, but to write to a running kernel. */
static bool may(const struct file *file, const struct command *c, u32 vnode)
{
	switch (c->who) {
	case ANYBODY:
		return true;
	case HOLDER:
		return kmb_control_held(file, vnode) ||
		       (kmb_owns(file) && c->number == KMB_NMI);
	}
	return kmb_owns(file);
}

static int run(struct file *file, const struct command *c, union argument *a)
{
	u32 vnode = a->vnode;
	int rc;

	if (!may(file, c, vnode))
		return -EACCES;
	if (!c->waits)
		return c->run(file, a);
	if (!kmb_vnode_enter(vnode))
		return -EBUSY;
	rc = c->run(file, a);
	kmb_vnode_leave(vnode);
	return rc;
}

static int run_locked(struct file *file, const struct command *c, union argument *a)
{
	int rc;

	mutex_lock(&kmb_lock);
	rc = run(file, c, a);
	mutex_unlock(&kmb_lock);
	return rc;
}

/* The watch reads the time by it at every tick, so it waits for nobody's kmb_lock. */
static long tell_info(void __user *p)
{
	struct vn_root_info info = {
		.abi = VN_ABI_VERSION,
		.x2apic = vn_lapic_x2apic(),
		.tsc_khz = tsc_khz,
		.boot_apicid = per_cpu(x86_cpu_to_apicid, 0),
		.ncpus = kmb_cpus_count(),
		.owner_pid = kmb_owner_pid_here(),
	};

	kmb_memory_info(&info);
	info.tsc = rdtsc();
	return copy_to_user(p, &info, sizeof(info)) ? -EFAULT : 0;
}

static long clear_memory(struct file *file, void __user *p)
{
	struct kmb_range range;

	if (copy_from_user(&range, p, sizeof(range)))
		return -EFAULT;
	return kmb_is_owner(file) ? kmb_clear(&range) : -EACCES;
}

static long put_back(struct file *file, void __user *p)
{
	struct kmb_put_back request;
	long rc;

	if (copy_from_user(&request, p, sizeof(request)))
		return -EFAULT;
	if (!kmb_is_owner(file))
		return -EACCES;
	rc = kmb_put_back(&request);
	if (!rc && copy_to_user(p, &request, sizeof(request)))
		rc = -EFAULT;
	return rc;
}

static long kmb_ioctl(struct file *file, unsigned int number, unsigned long arg)
{
	void __user *p = (void __user *)arg;
	const struct command *c;
	union argument *a;
	long rc = 0;

	switch (number) {
	case KMB_INFO:
		return tell_info(p);
	case KMB_CLEAR:
		return clear_memory(file, p);
	case KMB_PUT_BACK:
		return put_back(file, p);
	case KMB_ARM:
		return kmb_arm(file, p);
	case KMB_FIRE:
		return kmb_fire_tell(p);
	}
	c = find_command(number);
	if (!c)
		return -ENOTTY;
	a = kzalloc(sizeof(*a), GFP_KERNEL);
	if (!a)
		return -ENOMEM;
	if ((number & IOC_IN) && copy_from_user(a, p, _IOC_SIZE(number)))
		rc = -EFAULT;
	if (!rc)
		rc = run_locked(file, c, a);
	/* a failed park tells how many CPUs confirmed, refused control who has it */
	if ((number & IOC_OUT) && (!rc || rc == -ETIMEDOUT || rc == -EBUSY) &&
	    copy_to_user(p, a, _IOC_SIZE(number)))
		rc = -EFAULT;
	kfree(a);
	return rc;
}

static void forbid_writing(struct vm_area_struct *vma)
{
#ifdef KMB_HAVE_VM_FLAGS_CLEAR
	vm_flags_clear(vma, VM_MAYWRITE);
#else
	vma->vm_flags &= ~VM_MAYWRITE;
#endif
}

static int kmb_mmap(struct file *file, struct vm_area_struct *vma)
{
	u64 size = vma->vm_end - vma->vm_start;

	/* Not VM_SHARED: do_mmap() takes that from a read-only descriptor's */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff >> (BITS_PER_LONG - PAGE_SHIFT) ||
	    !kmb_memory_mappable((u64)vma->vm_pgoff << PAGE_SHIFT, size))
		return -EPERM;
	if (!kmb_is_owner(file)) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES;
		forbid_writing(vma);
	}
	return remap_pfn_range(vma, vma->vm_start, vma->vm_pgoff, size,
			       vma->vm_page_prot);
}

static int kmb_open(struct inode *inode, struct file *file)
{
	struct reader *r = kzalloc(sizeof(*r), GFP_KERNEL);
	u32 i;

	if (!r)
		return -ENOMEM;
	mutex_init(&r->lock);
	for (i = 1; i < VN_MAX_VNODES; i++)
		r->seen[i] = kmb_portal_rings(i);
	file->private_data = r;
	return nonseekable_open(inode, file);
}

static int kmb_release(struct inode *inode, struct file *file)
{
	mutex_lock(&kmb_lock);
	kmb_control_closed(file);
	kmb_owner_closed(file);
	mutex_unlock(&kmb_lock);
	kfree(file->private_data);
	return 0;
}

static ssize_t read_events(struct reader *r, char __user *buf, size_t count)
{
	ssize_t done = 0;
	u32 i;

	for (i = 1; i < VN_MAX_VNODES && count - done >= sizeof(struct kmb_event); i++) {
		struct kmb_event event;
		u32 seen = r->seen[i];

		if (!kmb_portal_event(i, &seen, &event))
			continue;
		if (copy_to_user(buf + done, &event, sizeof(event)))
			return done ?: -EFAULT;
		WRITE_ONCE(r->seen[i], seen);
		done += sizeof(event);
	}
	return done;
}

static ssize_t kmb_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct reader *r = file->private_data;
	ssize_t n;

	if (count < sizeof(struct kmb_event))
		return -EINVAL;
	for (;;) {
		if (mutex_lock_interruptible(&r->lock))
			return -ERESTARTSYS;
		n = read_events(r, buf, count);
		mutex_unlock(&r->lock);
		if (n)
			return n;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(kmb_portal_wait, kmb_portal_pending(r->seen)))
			return -ERESTARTSYS;
	}
}

static __poll_t kmb_poll(struct file *file, struct poll_table_struct *table)
{
	struct reader *r = file->private_data;

	poll_wait(file, &kmb_portal_wait, table);
	return kmb_portal_pending(r->seen) ? EPOLLIN | EPOLLRDNORM : 0;
}

static const struct file_operations kmb_fops = {
	.owner = THIS_MODULE,
	.open = kmb_open,
	.release = kmb_release,
	.read = kmb_read,
	.poll = kmb_poll,
	.mmap = kmb_mmap,
	.unlocked_ioctl = kmb_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice kmb_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kmb",
	.fops = &kmb_fops,
	.mode = 0600,
};

int __init kmb_device_init(void)
{
	return misc_register(&kmb_device);
}

void kmb_device_exit(void)
{
	misc_deregister(&kmb_device);
}
