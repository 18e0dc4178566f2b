// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Finds and maps the bridge: by the ACPI table VNBR, or by bridge=.  Nothing
 * is written before magic, version and size were found right.
 */
#include "agent.h"

#include <linux/acpi.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/utsname.h>
#include <asm/page.h>
#include <asm/tsc.h>

/* split off crash_core.h in 6.9 */
#if __has_include(<linux/vmcore_info.h>)
#include <linux/vmcore_info.h>
#else
#include <linux/crash_core.h>
#endif

static ulong bridge;
module_param(bridge, ulong, 0444);
MODULE_PARM_DESC(bridge, "physical address of the bridge, where no ACPI table tells it");

struct vn_root_side *root_side;
struct vn_vnode_side *vnode_side;
static void *base;

/* The table's body; see VN_ACPI_SIGNATURE */
struct bridge_table {
	struct acpi_table_header header;
	u64 address;
	u32 size;
	u32 abi;
} __packed;

static int find_by_acpi(u64 *address)
{
	struct acpi_table_header *header;
	const struct bridge_table *t;
	int rc = 0;

	if (ACPI_FAILURE(acpi_get_table(VN_ACPI_SIGNATURE, 1, &header)))
		return -ENODEV;
	t = (const struct bridge_table *)header;
	if (header->length < sizeof(*t) || t->abi != VN_ABI_VERSION ||
	    t->size != VN_BRIDGE_SIZE) {
		pr_err("ACPI table %s is not of version %u\n", VN_ACPI_SIGNATURE, VN_ABI_VERSION);
		rc = -EPROTO;
	} else {
		*address = t->address;
	}
	acpi_put_table(header);
	return rc;
}

static int check(const struct vn_root_side *r, u64 address)
{
	if (r->magic != VN_BRIDGE_MAGIC) {
		pr_err("no bridge at %#llx\n", address);
		return -ENODEV;
	}
	if (r->abi != VN_ABI_VERSION || r->size != VN_BRIDGE_SIZE) {
		pr_err("the bridge at %#llx is of version %u, size %#x; this module knows %u, %#x\n",
		       address, r->abi, r->size, VN_ABI_VERSION, VN_BRIDGE_SIZE);
		return -EPROTO;
	}
	return 0;
}

int bridge_map(void)
{
	u64 address = bridge;
	int rc;

	rc = address ? 0 : find_by_acpi(&address);
	if (rc == -ENODEV)
		pr_err("no ACPI table %s and no bridge=: this is no vnode\n", VN_ACPI_SIGNATURE);
	if (rc)
		return rc;
	if (!PAGE_ALIGNED(address))
		return -EINVAL;
	base = memremap(address, VN_BRIDGE_SIZE, MEMREMAP_WB);
	if (!base)
		return -ENOMEM;
	rc = check(base + VN_BR_ROOT, address);
	if (rc) {
		memunmap(base);
		return rc;
	}
	root_side = base + VN_BR_ROOT;
	vnode_side = base + VN_BR_VNODE;
	memset(vnode_side, 0, sizeof(*vnode_side));
	memset(base + VN_BR_BEATS, 0, VN_BR_DEBUG - VN_BR_BEATS);
	WRITE_ONCE(vnode_side->incarnation, root_side->incarnation);
	return 0;
}

void *bridge_at(u32 offset)
{
	return base + offset;
}

void bridge_publish(void)
{
	struct vn_vnode_side *v = vnode_side;

	v->ncpus = num_online_cpus();
	v->vmcoreinfo_pa = paddr_vmcoreinfo_note();
	v->vmcoreinfo_size = VMCOREINFO_NOTE_SIZE;
	v->phys_base = phys_base;
	v->hz = HZ;
	strscpy(v->release, init_utsname()->release, sizeof(v->release));
	v->agent_tsc = rdtsc();
	bridge_set_state(VN_S_AGENT);
	smp_store_release(&v->abi, VN_ABI_VERSION);
}

/* The root has emptied the bridge for the incarnation that this is now. */
void bridge_rejoin(void)
{
	WRITE_ONCE(vnode_side->incarnation, root_side->incarnation);
	portal_publish();
	console_publish();
	bridge_publish();
	peers_poll();
	portal_ring();
}

void bridge_set_state(u32 state)
{
	u32 old = READ_ONCE(vnode_side->state);

	while (old != VN_S_CRASHED && old != state) {
		u32 was = cmpxchg(&vnode_side->state, old, state);

		if (was == old)
			break;
		old = was;
	}
}

bool bridge_start_running(void)
{
	if (READ_ONCE(vnode_side->state) != VN_S_AGENT)
		return false;
	/* before the state, which tells the root that it is there */
	cmpxchg(&vnode_side->user_tsc, 0, rdtsc());
	return cmpxchg(&vnode_side->state, VN_S_AGENT, VN_S_RUNNING) == VN_S_AGENT;
}
