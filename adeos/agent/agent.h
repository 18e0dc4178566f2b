/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of vnode_agent.ko share. */
#ifndef AGENT_H
#define AGENT_H

#define pr_fmt(fmt) "vnode_agent: " fmt

#include <linux/ptrace.h>
#include <linux/types.h>

#include "vnode_abi.h"

/* bridge.c: the memory shared with the root */
int bridge_map(void);
void *bridge_at(u32 offset);
void bridge_publish(void);
void bridge_rejoin(void);		/* resumed as another incarnation */
extern struct vn_root_side *root_side;
extern struct vn_vnode_side *vnode_side;
void bridge_set_state(u32 state);	/* a crash is final */
bool bridge_start_running(void);	/* true for the first user beat */

static inline bool cpu_has_mailbox(unsigned int cpu)
{
	return cpu < VN_MAX_CPUS;
}

/* frame.c: registers */
struct vn_frame *frame_of(u32 area, unsigned int cpu);
void frame_save(struct vn_frame *f, const struct pt_regs *regs, u32 flags);
void frame_restore(const struct vn_frame *f, struct pt_regs *regs);
void frame_copy(struct vn_frame *to, const struct vn_frame *from, u32 flags);

/* beat.c */
int beat_init(void);
void beat(enum vn_layer layer);

/* portal.c: doorbells both ways */
int portal_init(void);
void portal_ring(void);			/* any context */
void portal_publish(void);

/* command.c, inject.c */
void command_poll(void);		/* from the doorbell */
int inject(u64 arg);
void inject_go(void);
bool inject_hung(void);
void inject_hang_here(void);

/* crash.c */
int crash_init(void);
bool crash_nmi(struct pt_regs *regs);	/* true when the NMI was ours */

/* reboot.c */
int reboot_init(void);

/* console.c */
int console_init_hvc(void);
void console_kick(void);		/* input may be there */
void console_publish(void);

/* debug.c */
int debug_init(void);
void debug_tick(void);			/* hard timer interrupt */
bool control_held(void);
const struct vn_control *control_area(void);
struct vn_debug *mailbox_of(unsigned int cpu);
u32 debug_park(struct pt_regs *regs, enum vn_cause cause, u64 dr6);

/* trap.c: where a CPU stops for the debugger */
int debug_traps_init(void);
bool trap_busy(void);
void trap_stop(struct pt_regs *regs);	/* in an NMI */
void trap_tick(void);
bool trap_goes_first(void);

/* freeze.c: parking with everything in memory, to be resumed */
int freeze_init(void);
int freeze_claim(void);
void freeze_go(void);
void freeze_declare(bool ready);

/* ready.c: user space's part in that; file operations of /dev/vnode */
struct inode;
struct file;
struct poll_table_struct;
bool ready_declared(void);
void ready_done(bool resumed);
int hooks_run(const char *which);
int ready_open(struct inode *inode, struct file *file);
ssize_t ready_read(struct file *file, char __user *buf, size_t count, loff_t *pos);
ssize_t ready_write(struct file *file, const char __user *buf, size_t count, loff_t *pos);
__poll_t ready_poll(struct file *file, struct poll_table_struct *table);

/* device.c */
int device_init(void);

/* peers.c: other vnodes that the root lets this one look at */
int peers_init(void);
void peers_poll(void);			/* from the doorbell */

#endif /* AGENT_H */
