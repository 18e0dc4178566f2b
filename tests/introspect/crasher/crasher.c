// SPDX-License-Identifier: GPL-2.0-or-later
/* A module that fails on purpose: insmod crasher.ko fault=null|timer */
#include <linux/module.h>
#include <linux/delay.h>
#include <linux/timer.h>

static char *fault = "none";
module_param(fault, charp, 0);

struct crasher_victim {
	int padding;
	int field;
};

/* An oops prints the code around the fault only if what lies before is mapped */
#define ROOM()	asm volatile(".skip 64, 0x90")

static noinline __attribute__((__noipa__)) void crasher_write(struct crasher_victim *victim)
{
	ROOM();
	WRITE_ONCE(victim->field, 1);
	barrier();
}

static noinline __attribute__((__noipa__)) void crasher_null(void)
{
	crasher_write(NULL);
	barrier();
}

static void crasher_tick(struct timer_list *unused)
{
	ROOM();
	BUG();
}
static DEFINE_TIMER(crasher_timer, crasher_tick);

static int __init crasher_init(void)
{
	if (!strcmp(fault, "null"))
		crasher_null();
	if (!strcmp(fault, "timer")) {
		mod_timer(&crasher_timer, jiffies + 1);
		mdelay(1000);
	}
	return 0;
}
module_init(crasher_init);

MODULE_DESCRIPTION("Fails on purpose");
MODULE_LICENSE("GPL");
