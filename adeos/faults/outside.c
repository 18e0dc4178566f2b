// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What no root without a hypervisor contains: the machine, the root or another
 * vnode is hurt.  Offered only when the module is loaded with outside=.
 */
#include "faults.h"
#include "vn_lapic.h"

#include <linux/io.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <asm/desc.h>

unsigned long outside;
module_param(outside, ulong, 0);
MODULE_PARM_DESC(outside, "offer what cannot be contained: physical address or APIC id that it aims at");

/* No handler for the exception, none for the double fault that follows. */
FAULT(TRIPLE_FAULT)
{
	const struct desc_ptr none = { .size = 0, .address = 0 };

	local_irq_disable();
	load_idt(&none);
	asm volatile("int3");
}

/* The chipset's reset control register. */
FAULT(RESET_PORTS)
{
	outb(0x02, 0xcf9);
	outb(0x06, 0xcf9);
}

FAULT(WILD_WRITE_OUTSIDE)
{
	void *there = memremap(outside, SZ_64M, MEMREMAP_WB);

	if (!there) {
		pr_err("cannot map %#lx\n", outside);
		return;
	}
	memset(there, 0xcc, SZ_64M);
	memunmap(there);
}

FAULT(STRAY_INIT)
{
	vn_lapic_icr(APIC_INT_ASSERT | APIC_DM_INIT, outside);
}

const struct fault faults_outside[] = {
	ENTRY(TRIPLE_FAULT), ENTRY(RESET_PORTS), ENTRY(WILD_WRITE_OUTSIDE), ENTRY(STRAY_INIT), {}
};
