// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Commands of the root, taken when its doorbell rings and carried out by a
 * kernel thread.  A command is marked done before it acts, as most never
 * return.
 */
#include "agent.h"

#include <linux/reboot.h>
#include <linux/sysrq.h>
#include <linux/workqueue.h>

static void run_command(struct work_struct *work);
static DECLARE_WORK(command_work, run_command);

static int check(u32 cmd, u64 arg)
{
	switch (cmd) {
	case VN_CMD_PING:
	case VN_CMD_HALT:
	case VN_CMD_REBOOT:
		return 0;
	case VN_CMD_SYSRQ:
		return arg > ' ' && arg < 0x7f ? 0 : EINVAL;
	case VN_CMD_INJECT:
		return READ_ONCE(root_side->flags) & VN_F_INJECT ? 0 : EPERM;
	case VN_CMD_FREEZE:
		return freeze_claim();
	}
	return EINVAL;
}

static void act(u32 cmd, u64 arg)
{
	switch (cmd) {
	case VN_CMD_HALT:
		orderly_poweroff(true);
		break;
	case VN_CMD_REBOOT:
		orderly_reboot();
		break;
	case VN_CMD_SYSRQ:
		handle_sysrq(arg);
		break;
	case VN_CMD_INJECT:
		inject_go();
		break;
	case VN_CMD_FREEZE:
		freeze_go();
		break;
	}
}

static void run_command(struct work_struct *work)
{
	u32 seq = smp_load_acquire(&root_side->cmd_seq);
	u32 cmd = READ_ONCE(root_side->cmd);
	u64 arg = READ_ONCE(root_side->cmd_arg);
	int rc;

	if (seq == READ_ONCE(vnode_side->cmd_done))
		return;
	rc = check(cmd, arg);
	if (!rc && cmd == VN_CMD_INJECT)
		rc = inject(arg);
	WRITE_ONCE(vnode_side->cmd_result, rc);
	smp_store_release(&vnode_side->cmd_done, seq);
	if (!rc)
		act(cmd, arg);
}

void command_poll(void)
{
	if (READ_ONCE(root_side->cmd_seq) != READ_ONCE(vnode_side->cmd_done))
		queue_work(system_highpri_wq, &command_work);
}
