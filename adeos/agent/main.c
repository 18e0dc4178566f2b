// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnode_agent.ko: a vnode's side of the bridge.
 *
 * Tells the root that this kernel lives (beats), dies (crash record) or leaves
 * (halt, reboot), serves its console and its debug mailbox, freezes it for the
 * root to keep, and shows its user space the vnodes that the root granted to
 * it.  It stays loaded: a kernel without it looks hung to the root.
 *
 * Limits: what happens before it is loaded goes unreported, and a fault that
 * destroys the bridge or the interrupt tables goes unseen until the beats are
 * missed.
 */
#include "agent.h"

#include <linux/init.h>
#include <linux/module.h>

static const struct {
	const char *name;
	int (*init)(void);
	bool vital;
} parts[] = {
	{ "crash report", crash_init, true },
	{ "debug mailbox", debug_init, true },
	{ "breakpoints", debug_traps_init, false },
	{ "reboot guard", reboot_init, true },
	{ "portal", portal_init, false },
	{ "console", console_init_hvc, false },
	{ "beats", beat_init, true },
	{ "freezing", freeze_init, false },
	{ "/dev/vnode", device_init, true },
	{ "/dev/vnode-peers", peers_init, false },
};

/*
 * There is no way back once a notifier is registered, so a part that fails is
 * told and the others go on: a vnode with fewer senses beats one with none.
 */
static int __init agent_init(void)
{
	size_t i;
	int rc;

	rc = bridge_map();
	if (rc)
		return rc;
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		rc = parts[i].init();
		if (rc && parts[i].vital)
			pr_err("%s failed: %d; this vnode is not fully watched\n",
			       parts[i].name, rc);
		else if (rc)
			pr_warn("no %s: %d\n", parts[i].name, rc);
	}
	bridge_publish();
	portal_ring();
	pr_info("vnode %u \"%.*s\", incarnation %u\n", root_side->vnode_id,
		VN_NAME_LEN, root_side->name, root_side->incarnation);
	return 0;
}

module_init(agent_init);
MODULE_DESCRIPTION("Tells the root vnode how this vnode fares");
MODULE_AUTHOR("vnode-debug");
MODULE_LICENSE("GPL");
