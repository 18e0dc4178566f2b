// SPDX-License-Identifier: GPL-2.0-or-later
/* /dev/vnode: user space asks who it is, beats, and says that it may be frozen. */
#include "agent.h"

#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

static long self(void __user *p)
{
	struct vn_self s = {
		.vnode_id = root_side->vnode_id,
		.incarnation = root_side->incarnation,
		.ncpus = root_side->ncpus,
		.user_period_us = root_side->period_us[VN_LAYER_USER],
	};

	memcpy(s.name, root_side->name, sizeof(s.name));
	s.name[sizeof(s.name) - 1] = 0;
	return copy_to_user(p, &s, sizeof(s)) ? -EFAULT : 0;
}

static long user_beat(void)
{
	if (inject_hung())
		inject_hang_here();
	preempt_disable();
	beat(VN_LAYER_USER);
	preempt_enable();
	if (bridge_start_running())
		portal_ring();
	return 0;
}

static long vnode_ioctl(struct file *file, unsigned int number, unsigned long arg)
{
	switch (number) {
	case VNODE_SELF:
		return self((void __user *)arg);
	case VNODE_BEAT:
		return user_beat();
	}
	return -ENOTTY;
}

static const struct file_operations vnode_fops = {
	.owner = THIS_MODULE,
	.open = ready_open,
	.read = ready_read,
	.write = ready_write,
	.poll = ready_poll,
	.unlocked_ioctl = vnode_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice vnode_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "vnode",
	.fops = &vnode_fops,
	.mode = 0600,
};

int device_init(void)
{
	return misc_register(&vnode_device);
}
