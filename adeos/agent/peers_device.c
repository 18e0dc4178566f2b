// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/vnode-peers: what /dev/kmb offers an observer, for the granted vnodes
 * alone, and to a debugger by way of the root.  Mappings are read-only and
 * filled at their first fault, so that one made while a grant ends is never
 * missed by the taking away.
 */
#include "peers.h"

#include <linux/compat.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "vn_lapic.h"

/* Room for the argument of any ioctl */
union argument {
	struct vn_root_info info;
	struct kmb_cpus cpus;
	struct kmb_bind bind;
	struct vn_grants grants;
};

static void fill_ranges(struct vn_root_info *info)
{
	u64 low = U64_MAX, end = 0;
	u32 i;

	for (i = 0; i < VN_MAX_GRANTS; i++) {
		const struct vn_status *s = &peers[i].status;

		if (!peers[i].generation)
			continue;
		info->range[info->nranges].base = s->region_base;
		info->range[info->nranges++].size = s->region_size;
		low = min_t(u64, low, s->slot_base);
		end = max_t(u64, end, s->slot_base + s->slot_size);
	}
	if (end) {
		info->low_base = low;
		info->low_size = end - low;
	}
}

static int do_info(union argument *a)
{
	struct vn_root_info *info = &a->info;
	u32 i;

	memset(info, 0, sizeof(*info));
	info->abi = VN_ABI_VERSION;
	info->x2apic = vn_lapic_x2apic();
	info->tsc_khz = root_side->tsc_khz;
	for (i = 0; i < VN_MAX_GRANTS; i++)
		info->ncpus += peers[i].status.ncpus;
	fill_ranges(info);
	info->root_pa = root_pa();
	info->tsc = rdtsc();
	return 0;
}

static int do_cpus(union argument *a)
{
	struct kmb_cpus *list = &a->cpus;
	u32 i, c;

	memset(list, 0, sizeof(*list));
	for (i = 0; i < VN_MAX_GRANTS; i++) {
		const struct peer *p = &peers[i];

		for (c = 0; c < p->status.ncpus && list->n < ARRAY_SIZE(list->cpu); c++) {
			struct kmb_cpu *cpu = &list->cpu[list->n++];

			cpu->cpu = p->status.cpu[c];
			cpu->apicid = p->status.apicid[c];
			cpu->state = p->grant.started ? KMB_CPU_STARTED : KMB_CPU_PARKED;
			cpu->vnode = p->id;
		}
	}
	return 0;
}

static int do_query(union argument *a)
{
	const struct peer *p = a->bind.vnode ? peers_find(a->bind.vnode) : NULL;
	struct kmb_bind *b = &a->bind;

	if (!p || !p->generation)
		return -ENOENT;
	memset(b, 0, sizeof(*b));
	b->vnode = p->id;
	b->ncpus = p->status.ncpus;
	memcpy(b->cpu, p->status.cpu, sizeof(b->cpu));
	b->region_base = p->status.region_base;
	b->region_size = p->status.region_size;
	b->slot_base = p->status.slot_base;
	b->slot_size = p->status.slot_size;
	b->started = p->grant.started;
	b->start_tsc = p->grant.start_tsc;
	return 0;
}

static int do_grants(union argument *a)
{
	struct vn_grants *g = &a->grants;
	u32 i;

	memset(g, 0, sizeof(*g));
	for (i = 0; i < VN_MAX_GRANTS; i++) {
		if (!peers[i].id)
			continue;
		g->grant[g->n] = peers[i].grant;
		g->status[g->n++] = peers[i].status;
	}
	return 0;
}

static const struct command {
	unsigned int number;
	int (*run)(union argument *a);
} commands[] = {
	{ KMB_INFO, do_info },
	{ KMB_CPUS, do_cpus },
	{ KMB_QUERY, do_query },
	{ VNODE_GRANTS, do_grants },
};

static const struct command *find_command(unsigned int number)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].number == number)
			return &commands[i];
	return NULL;
}

/* User memory is touched without the lock: a fault in it may want it. */
static long peers_ioctl(struct file *file, unsigned int number, unsigned long arg)
{
	const struct command *c = find_command(number);
	void __user *p = (void __user *)arg;
	union argument *a;
	long rc = 0;

	if (peers_is_order(number))
		return peers_order(file, number, p);
	if (!c)
		return -ENOTTY;
	a = kzalloc(sizeof(*a), GFP_KERNEL);
	if (!a)
		return -ENOMEM;
	if ((number & IOC_IN) && copy_from_user(a, p, _IOC_SIZE(number)))
		rc = -EFAULT;
	if (!rc) {
		mutex_lock(&peers_lock);
		peers_refresh();
		rc = c->run(a);
		mutex_unlock(&peers_lock);
	}
	if (!rc && (number & IOC_OUT) && copy_to_user(p, a, _IOC_SIZE(number)))
		rc = -EFAULT;
	kfree(a);
	return rc;
}

/* The pages around a fault as well: 512 of them cost little more than one. */
static vm_fault_t fill(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long at = max(vmf->address & PMD_MASK, vma->vm_start);
	unsigned long end = min((vmf->address & PMD_MASK) + PMD_SIZE, vma->vm_end);
	unsigned long pfn = vma->vm_pgoff + ((at - vma->vm_start) >> PAGE_SHIFT);
	vm_fault_t rc = VM_FAULT_NOPAGE;

	for (; at < end && rc == VM_FAULT_NOPAGE; at += PAGE_SIZE, pfn++)
		rc = vmf_insert_pfn(vma, at, pfn);
	return rc;
}

/*
 * Zeros where the grant or the incarnation has ended: the reader asks
 * KMB_QUERY after it has read and learns why.  SIGBUS would end it instead.
 */
static vm_fault_t peers_fault(struct vm_fault *vmf)
{
	u64 generation = (unsigned long)vmf->vma->vm_private_data;
	vm_fault_t rc;

	mutex_lock(&peers_lock);
	peers_refresh();
	if (peers_of_generation(generation) || root_is_generation(generation))
		rc = fill(vmf);
	else
		rc = vmf_insert_pfn(vmf->vma, vmf->address & PAGE_MASK,
				    page_to_pfn(ZERO_PAGE(0)));
	mutex_unlock(&peers_lock);
	return rc;
}

static const struct vm_operations_struct peers_vm_ops = {
	.fault = peers_fault,
};

static void set_flags(struct vm_area_struct *vma)
{
	vm_flags_t set = VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY;

#ifdef AGENT_HAVE_VM_FLAGS_MOD
	vm_flags_mod(vma, set, VM_MAYWRITE);
#else
	vma->vm_flags = (vma->vm_flags | set) & ~VM_MAYWRITE;
#endif
}

static int peers_mmap(struct file *file, struct vm_area_struct *vma)
{
	u64 base = (u64)vma->vm_pgoff << PAGE_SHIFT, size = vma->vm_end - vma->vm_start;
	u64 generation = 0;
	struct peer *p;

	/* Not VM_SHARED: do_mmap() takes that from a read-only descriptor's */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	mutex_lock(&peers_lock);
	peers_refresh();
	if (!(vma->vm_pgoff >> (BITS_PER_LONG - PAGE_SHIFT))) {
		p = peers_at(base, size);
		generation = p ? p->generation : root_at(base, size);
	}
	mutex_unlock(&peers_lock);
	if (!generation)
		return -EPERM;
	vma->vm_private_data = (void *)(unsigned long)generation;
	set_flags(vma);
	vma->vm_ops = &peers_vm_ops;
	return 0;
}

static int peers_open(struct inode *inode, struct file *file)
{
	static atomic64_t clients;
	struct peers_file *f = kzalloc(sizeof(*f), GFP_KERNEL);

	if (!f)
		return -ENOMEM;
	f->file = file;
	f->client = atomic64_inc_return(&clients);
	file->private_data = f;
	mutex_lock(&peers_lock);
	list_add(&f->list, &peers_files);
	mutex_unlock(&peers_lock);
	return nonseekable_open(inode, file);
}

static int peers_release(struct inode *inode, struct file *file)
{
	struct peers_file *f = file->private_data;

	peers_order_end(f);
	mutex_lock(&peers_lock);
	list_del(&f->list);
	mutex_unlock(&peers_lock);
	kfree(f);
	return 0;
}

static const struct file_operations peers_fops = {
	.owner = THIS_MODULE,
	.open = peers_open,
	.release = peers_release,
	.mmap = peers_mmap,
	.unlocked_ioctl = peers_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice peers_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vnode-peers",
	.fops = &peers_fops,
	.mode = 0600,
};

int peers_device_init(void)
{
	return misc_register(&peers_misc);
}
