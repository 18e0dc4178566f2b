/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of kmb.ko share. */
#ifndef KMB_H
#define KMB_H

#define pr_fmt(fmt) "kmb: " fmt

#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "vnode_abi.h"

/* memory.c: the memory given to vnodes */
int kmb_memory_init(void);
void kmb_memory_exit(void);
bool kmb_memory_given(struct kmb_range *r);	/* overlaps one of them, which it becomes */
void kmb_memory_info(struct vn_root_info *info);
bool kmb_memory_region(u64 base, u64 size);	/* inside one range */
bool kmb_memory_slot(u64 base, u64 size);	/* inside the low memory */
bool kmb_memory_mappable(u64 base, u64 size);

static inline bool kmb_overlap(u64 a, u64 asize, u64 b, u64 bsize)
{
	return a < b + bsize && b < a + asize;
}

/* nothing at all (size 0) lies within whatever it begins in */
static inline bool kmb_within(u64 pa, u64 size, u64 base, u64 length)
{
	return pa >= base && size <= length && pa - base <= length - size;
}

/* cpus.c: the CPUs given to vnodes */
int kmb_cpus_init(void);
void kmb_cpus_exit(void);
u32 kmb_cpus_count(void);
void kmb_cpus_list(struct kmb_cpus *list);
int kmb_cpus_bind(u32 vnode, const u32 *cpu, u32 n, struct kmb_cpu **out);
void kmb_cpus_unbind(struct kmb_cpu **cpu, u32 n);

/* portal.c: the vnodes' doorbells to the root */
int kmb_portal_open(u32 vnode, u32 *vector, u32 *apicid);
void kmb_portal_close(u32 vnode);
u32 kmb_portal_rings(u32 vnode);
extern struct wait_queue_head kmb_portal_wait;
bool kmb_portal_pending(const u32 *seen);
bool kmb_portal_event(u32 vnode, u32 *seen, struct kmb_event *event);
void kmb_portal_exit(void);

/**
 * struct kmb_vnode - a bound vnode; guarded by kmb_lock
 * @id: 1..31, 0 = not bound
 * @ncpus: valid entries of @cpu
 * @cpu: its CPUs, the boot CPU first
 * @region_base: bytes; with @region_size
 * @region_size: bytes
 * @slot_base: bytes; with @slot_size
 * @slot_size: bytes
 * @vector: root vector of its portal
 * @dest_apicid: and its destination
 * @start_tsc: TSC of the last start
 * @page: mapping of the slot's first page
 * @nonce: of its last parking
 * @pinned: a module reference is held, because a CPU may run the vnode
 * @busy: a call parks or starts it, and waits for its CPUs without kmb_lock
 */
struct kmb_vnode {
	u32 id;
	u32 ncpus;
	struct kmb_cpu *cpu[VN_MAX_CPUS];
	u64 region_base;
	u64 region_size;
	u32 slot_base;
	u32 slot_size;
	u32 vector;
	u32 dest_apicid;
	u64 start_tsc;
	void *page;
	u32 nonce;
	bool pinned;
	bool busy;
};

/* vnode.c: binding */
extern struct mutex kmb_lock;
struct kmb_vnode *kmb_vnode_find(u32 id);
bool kmb_vnode_enter(u32 id);
void kmb_vnode_leave(u32 id);
int kmb_vnode_check_memory(const struct kmb_bind *bind);
bool kmb_vnode_is_table(const struct kmb_vnode *v, u64 pa);
int kmb_vnode_bind(struct kmb_bind *bind);
int kmb_vnode_unbind(u32 id);
int kmb_vnode_query(struct kmb_bind *bind);
int kmb_vnode_start(struct kmb_start *start);
int kmb_vnode_resume(struct kmb_resume *resume);
int kmb_vnode_park(struct kmb_park *park);
int kmb_vnode_interrupt(const struct kmb_ipi *ipi, bool nmi);
bool kmb_vnode_started(const struct kmb_vnode *v);
bool kmb_vnode_running_in(u64 base, u64 size);
void kmb_vnode_exit(void);

/* control.c: a debugger's control of a vnode; under kmb_lock but for init and exit */
void kmb_control_init(void);
void kmb_control_exit(void);
int kmb_control(struct file *file, struct kmb_control *control);
int kmb_control_poke(const struct kmb_poke *poke);
int kmb_control_break(const struct kmb_break *b);
bool kmb_control_held(const struct file *file, u32 vnode);
void kmb_control_query(struct kmb_bind *bind);
void kmb_control_drop(struct kmb_vnode *v);
void kmb_control_closed(const struct file *file);

/* bulk.c: writing much memory without holding kmb_lock */
int kmb_clear(const struct kmb_range *range);
int kmb_put_back(struct kmb_put_back *p);
bool kmb_bulk_busy(u64 base, u64 size);

/* startup.c: INIT, SIPI and the trampoline */
int kmb_startup_park(struct kmb_vnode *v, u32 timeout_ms, u32 *parked, u64 *tsc);
int kmb_startup_boot(struct kmb_vnode *v, struct kmb_start *start);
int kmb_startup_resume(struct kmb_vnode *v, struct kmb_resume *resume);

/* elcr.c: the interrupt controller's edge/level register */
void kmb_elcr_init(void);
void kmb_elcr_guard(void);
void kmb_elcr_exit(void);

/* lastword.c: what the successor hears of the root */
int kmb_last_init(void);
void kmb_last_exit(void);
int kmb_last_successor(u32 vnode);

/* arm.c, fire.c: restarting a vnode without a daemon; under kmb_lock but for init, exit, kmb_arm
 * and kmb_fire_tell */
void kmb_arm_exit(void);
int kmb_fire_init(void);
void kmb_fire_exit(void);
long kmb_arm(struct file *file, void __user *p);
long kmb_fire_tell(void __user *p);
int kmb_settle(u32 vnode);
void kmb_disarm(u32 vnode);
void kmb_disarm_memory(u64 base, u64 size, u32 vnode);

/* owner.c: one open file that acts; under kmb_lock but for the first */
bool kmb_is_owner(const struct file *file);	/* takes kmb_lock */
bool kmb_owns(const struct file *file);
pid_t kmb_owner_pid(void);			/* 0 = nobody owns the machine */
pid_t kmb_owner_pid_here(void);
void kmb_owner_kill(void);
int kmb_owner_claim(struct file *file);
void kmb_owner_closed(const struct file *file);

/* device.c: /dev/kmb */
int kmb_device_init(void);
void kmb_device_exit(void);

#endif /* KMB_H */
