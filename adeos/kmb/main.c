// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kmb.ko: the kernel-mode bootloader's root side.
 *
 * Gives the root's user space memory, CPUs and doorbells of vnodes by
 * /dev/kmb (see vnode_abi.h).  It knows nothing of kernels and images: user
 * space composes a vnode in memory, this module starts and stops its CPUs.
 *
 * Limits: a vnode shares the machine's ring 0, so a fault in it that writes to
 * foreign memory or resets the machine is beyond reach.
 */
#include "kmb.h"

#include <linux/init.h>
#include <linux/module.h>

static int __init kmb_init(void)
{
	struct vn_root_info info = { 0 };
	int rc;

	rc = kmb_memory_init();
	if (rc)
		return rc;
	rc = kmb_cpus_init();
	if (rc)
		goto no_cpus;
	kmb_elcr_init();
	kmb_control_init();
	rc = kmb_last_init();
	if (rc)
		goto no_last;
	rc = kmb_fire_init();
	if (rc)
		goto no_fire;
	rc = kmb_device_init();
	if (rc) {
		pr_err("cannot make /dev/kmb: %d\n", rc);
		goto no_device;
	}
	kmb_memory_info(&info);
	pr_info("%u CPUs, %u memory ranges, low %#llx+%#llx, root bridge %#llx\n",
		kmb_cpus_count(), info.nranges, info.low_base, info.low_size,
		info.root_pa);
	return 0;

no_device:
	kmb_fire_exit();
no_fire:
	kmb_last_exit();
no_last:
	kmb_cpus_exit();
no_cpus:
	kmb_memory_exit();
	return rc;
}

static void __exit kmb_exit(void)
{
	kmb_device_exit();
	kmb_fire_exit();
	kmb_last_exit();
	kmb_control_exit();
	kmb_vnode_exit();
	kmb_portal_exit();
	kmb_elcr_exit();
	kmb_cpus_exit();
	kmb_memory_exit();
}

module_init(kmb_init);
module_exit(kmb_exit);
MODULE_DESCRIPTION("Starts, stops and watches further kernels on CPUs and memory of their own");
MODULE_AUTHOR("vnode-debug");
MODULE_LICENSE("GPL");
