// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Halt, power off and reboot end here: the stock kernel would go on to reset
 * or switch off the whole machine.  The root is told, then this kernel stops.
 *
 * halt, poweroff and reboot (forced or not) call the reboot notifiers;
 * sysrq-b, panic=N and emergency_restart() do not, hence the kprobe.
 */
#include "agent.h"

#include <linux/kprobes.h>
#include <linux/notifier.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <asm/irqflags.h>

static void __noreturn stop(void)
{
	smp_send_stop();
	local_irq_disable();
	for (;;)
		native_halt();
}

static void __noreturn leave(u32 state)
{
	bridge_set_state(state);
	portal_ring();
	stop();
}

static int on_reboot(struct notifier_block *nb, unsigned long code, void *cmd)
{
	if (code == SYS_RESTART && cmd && !strcmp(cmd, "kexec reboot")) {
		bridge_set_state(VN_S_KEXEC);
		portal_ring();
		return NOTIFY_DONE;
	}
	leave(code == SYS_RESTART ? VN_S_REBOOT : VN_S_HALTED);
}

/* after all other notifiers */
static struct notifier_block reboot_nb = {
	.notifier_call = on_reboot,
	.priority = INT_MIN,
};

static int before_restart(struct kprobe *probe, struct pt_regs *regs)
{
	leave(VN_S_REBOOT);
}

static struct kprobe restart_probe = {
	.symbol_name = "native_machine_emergency_restart",
	.pre_handler = before_restart,
};

int reboot_init(void)
{
	int rc = register_reboot_notifier(&reboot_nb);

	return rc ?: register_kprobe(&restart_probe);
}
