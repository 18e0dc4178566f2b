// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * In-kernel fire: an armed vnode that is dead is restarted from here, when no
 * daemon is left to do it.
 *
 * One owner acts at a time, and this is no exception: it fires only while nobody
 * owns the machine, under kmb_lock, so a daemon that comes back finds it done or
 * not begun.  A daemon that has the machine and is as silent as a dead one is
 * killed first, as a standby would do: it could wake up later and write into
 * what it takes for its own.
 *
 * Only what cannot be anything else is a failure here: a crash record, or beats
 * that are missing for longer than the daemon itself would wait.  An orderly
 * halt or reboot and a debugger's stop are none.
 */
#include "fire.h"

#include <linux/delay.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>
#include <asm/tsc.h>

#include "vn_lapic.h"

#define LOOK_MS		50
#define RECORD_MS	2000	/* a crash record may take so long to be complete */
#define HUNG_MS		5000	/* an owner that does not tick is killed, not before */
#define STARTING_MS	120000	/* the same for one that has not begun to tick, or ends */
#define NMI_WAIT_US	100000
#define PARK_MS		1000

static struct vn_root_head *head;
static struct delayed_work look_work;

/* guarded by kmb_lock */
static u64 last_beat;
static u32 silent_ms;		/* no tick of a daemon */
static u64 last_look;		/* ns, 0 = not looking */

static u32 beat_still(u64 beat, u32 passed)
{
	if (beat != last_beat) {
		last_beat = beat;
		silent_ms = 0;
	} else {
		silent_ms = min_t(u64, (u64)silent_ms + passed, U32_MAX);
	}
	return silent_ms;
}

static const struct vn_vnode_side *side_of(const struct kmb_armed *a)
{
	return a->bridge + VN_BR_VNODE;
}

/* Whether the vnode itself says that it died; a record that is never completed counts, too. */
static bool recorded(struct kmb_armed *a, u32 passed)
{
	const struct vn_crash *crash = a->bridge + VN_BR_CRASH;
	u32 state = READ_ONCE(crash->state);

	if (state == VN_CRASH_EMPTY || READ_ONCE(crash->incarnation) != a->arm.incarnation) {
		a->record_ms = 0;
		return false;
	}
	a->record_ms += passed;
	return state == VN_CRASH_DONE || a->record_ms > RECORD_MS;
}

static bool ended_in_order(const struct kmb_armed *a)
{
	u32 state = READ_ONCE(side_of(a)->state);

	return READ_ONCE(side_of(a)->incarnation) == a->arm.incarnation &&
	       (state == VN_S_HALTED || state == VN_S_REBOOT || state == VN_S_KEXEC);
}

static bool is_held(u32 vnode)
{
	struct kmb_bind bind = { .vnode = vnode };

	kmb_control_query(&bind);
	return bind.holder;
}

/* The first CPU with a layer that is silent for too long; brings the counts up to date. */
static u32 silent_layer(struct kmb_armed *a, const struct kmb_vnode *v, u32 passed, u32 *cpu)
{
	const struct vn_beat *beats = a->bridge + VN_BR_BEATS;
	u32 cause = KMB_C_NONE, i, layer;

	for (i = 0; i < v->ncpus; i++) {
		for (layer = 0; layer < VN_LAYERS; layer++) {
			u64 count = READ_ONCE(beats[i].count[layer]);
			u32 limit = a->arm.limit_ms[layer];

			if (count != a->count[i][layer] || !count)
				a->still_ms[i][layer] = 0;
			else
				a->still_ms[i][layer] += passed;
			a->count[i][layer] = count;
			if (cause == KMB_C_NONE && limit && a->still_ms[i][layer] > limit) {
				cause = KMB_C_IRQ + layer;
				*cpu = i;
			}
		}
	}
	return cause;
}

static void start_afresh(struct kmb_armed *a)
{
	memset(a->still_ms, 0, sizeof(a->still_ms));
	a->record_ms = 0;
}

static u32 cause_of(struct kmb_armed *a, const struct kmb_vnode *v, u32 passed, u32 *cpu)
{
	if (recorded(a, passed))
		return KMB_C_RECORD;
	if (is_held(v->id) || ended_in_order(a)) {
		start_afresh(a);
		return KMB_C_NONE;
	}
	return silent_layer(a, v, passed, cpu);
}

/* As the daemon does it: INIT forgets the registers of a CPU that hangs. */
static void ask_registers(const struct kmb_vnode *v, struct kmb_armed *a, struct kmb_fire *f)
{
	struct vn_debug *d = a->bridge + VN_BR_DEBUG;
	u32 seq[VN_MAX_CPUS], i, us;

	if (READ_ONCE(side_of(a)->incarnation) != a->arm.incarnation)
		return;	/* without the agent an NMI is a fault of its own */
	f->asked = 1;
	for (i = 0; i < v->ncpus; i++) {
		seq[i] = READ_ONCE(d[i].save_seq) + 1;
		WRITE_ONCE(d[i].save_seq, seq[i]);
		WRITE_ONCE(d[i].nmi, 1);
		if (v->cpu[i]->state == KMB_CPU_STARTED)
			vn_lapic_icr(APIC_DM_NMI, v->cpu[i]->apicid);
	}
	for (us = 0; us < NMI_WAIT_US && f->answered != GENMASK(v->ncpus - 1, 0); us += 1000) {
		usleep_range(1000, 1200);
		for (i = 0; i < v->ncpus; i++)
			if (READ_ONCE(d[i].saved) == seq[i])
				f->answered |= BIT(i);
	}
}

static void keep(const struct kmb_vnode *v, struct kmb_armed *a)
{
	void *low = memremap(v->slot_base + VN_SLOT_RAM, v->slot_size - VN_SLOT_RAM, MEMREMAP_WB);

	memcpy(a->keep, a->bridge, KMB_FIRE_BRIDGE);
	if (low)
		memcpy(a->keep + KMB_FIRE_BRIDGE, low, v->slot_size - VN_SLOT_RAM);
	else	/* the dump lacks 32 KiB then */
		memset(a->keep + KMB_FIRE_BRIDGE, 0, v->slot_size - VN_SLOT_RAM);
	memunmap(low);
}

static int move(const struct kmb_vnode *v, const struct kmb_armed *a)
{
	struct kmb_bind bind = kmb_armed_bind(v, a);

	return kmb_vnode_bind(&bind);
}

static void put_in_place(const struct kmb_armed *a)
{
	u32 i;

	for (i = 0; i < a->arm.npieces; i++)
		if (a->held[i])
			memcpy(a->dest[i], a->held[i], a->arm.piece[i].size);
}

static int start(const struct kmb_armed *a, struct kmb_fire *f)
{
	struct vn_root_side *side = a->next;
	struct kmb_start start = {
		.vnode = a->arm.vnode,
		.cr3 = a->arm.cr3,
		.entry = a->arm.entry,
		.rsi = a->arm.rsi,
	};
	int rc;

	/* before its first instruction: nobody comes back to correct it */
	side->start_tsc = rdtsc();
	side->wall_ns = ktime_get_real_ns();
	rc = kmb_vnode_start(&start);
	f->started_tsc = start.tsc;
	return rc;
}

/* From here on nothing of the predecessor can be undone. */
static int restart(struct kmb_vnode *v, struct kmb_armed *a, struct kmb_fire *f)
{
	struct kmb_park park = { .vnode = v->id, .timeout_ms = PARK_MS };
	int rc = kmb_vnode_park(&park);

	f->fenced_tsc = park.tsc;
	if (rc)
		return rc;
	keep(v, a);
	kmb_fire_keep(v->id, a);
	f->captured_tsc = rdtsc();
	rc = move(v, a);
	if (rc)
		return rc;
	put_in_place(a);
	f->loaded_tsc = rdtsc();
	return start(a, f);
}

static int may_fire(const struct kmb_vnode *v, const struct kmb_armed *a)
{
	struct kmb_bind bind = kmb_armed_bind(v, a);
	u32 bad = kmb_armed_altered(a);

	if (bad < KMB_ARM_PIECES) {
		pr_err("vnode %u: what was armed at %#llx was altered, it is not fired\n",
		       v->id, a->arm.piece[bad].pa);
		return -EBADMSG;
	}
	return kmb_vnode_check_memory(&bind);
}

static void fire(struct kmb_vnode *v, u32 cause, u32 cpu)
{
	struct kmb_fire *f = kmb_fire_record(v->id);
	struct kmb_armed *a = kmb_armed(v->id);
	u64 still = cause == KMB_C_RECORD ? 0 : a->still_ms[cpu][cause - KMB_C_IRQ];
	int rc;

	f->seen_tsc = rdtsc();
	f->wall_ns = ktime_get_real_ns();
	f->fault_tsc = f->seen_tsc - still * tsc_khz;
	f->daemon_tsc = READ_ONCE(head->beat_tsc);
	f->cause = cause;
	f->cpu = cpu;
	rc = may_fire(v, a);
	if (!rc && cause != KMB_C_RECORD) {
		ask_registers(v, a, f);
		/* it may only have stood still; asked anew when its limit is over again */
		if (silent_layer(a, v, 0, &cpu) == KMB_C_NONE) {
			f->cause = KMB_C_NONE;
			f->asked = f->answered = 0;
			return;
		}
	}
	kmb_armed_take(v->id);
	f->state = KMB_F_REFUSED;
	if (!rc) {
		pr_warn("vnode %u is dead and no daemon is there: it is restarted at %#llx\n",
			v->id, a->arm.region_base);
		__module_get(THIS_MODULE);	/* a parked vnode holds it no more */
		rc = restart(v, a, f);
		module_put(THIS_MODULE);
		f->state = rc ? KMB_F_FAILED : KMB_F_FIRED;
	}
	f->error = -rc;
	kmb_armed_free(a);
}

/* Whether nobody owns the machine; an owner that hangs will not for long. */
static bool ownerless(u32 silent)
{
	pid_t owner = kmb_owner_pid();
	u32 limit = last_beat && READ_ONCE(head->pid) == owner ? HUNG_MS : STARTING_MS;

	if (!owner)
		return true;
	if (silent > limit)
		kmb_owner_kill();
	return false;
}

static void look_at(u32 vnode, u32 silent, u32 passed)
{
	struct kmb_armed *a = kmb_armed(vnode);
	struct kmb_vnode *v = kmb_vnode_find(vnode);
	u32 cause, cpu = 0;

	if (!a || !v)
		return;
	if (silent < a->arm.silence_ms) {
		start_afresh(a);
		return;
	}
	cause = cause_of(a, v, passed, &cpu);
	if (cause != KMB_C_NONE && ownerless(silent))
		fire(v, cause, cpu);
}

static void look(struct work_struct *work)
{
	u64 now = ktime_get_ns();
	u32 i, passed, silent;
	bool any = false;

	mutex_lock(&kmb_lock);
	/* a look that comes late says nothing of those it looks at */
	passed = last_look ? min_t(u64, (now - last_look) / NSEC_PER_MSEC, 2 * LOOK_MS) : 0;
	silent = beat_still(READ_ONCE(head->beat), passed);
	for (i = 1; i < VN_MAX_VNODES; i++) {
		look_at(i, silent, passed);
		any |= !!kmb_armed(i);
	}
	last_look = any ? now : 0;
	mutex_unlock(&kmb_lock);
	if (any)
		queue_delayed_work(system_long_wq, &look_work, msecs_to_jiffies(LOOK_MS));
}

void kmb_fire_watch(void)
{
	queue_delayed_work(system_long_wq, &look_work, msecs_to_jiffies(LOOK_MS));
}

int __init kmb_fire_init(void)
{
	struct vn_root_info info = { 0 };
	int rc;

	kmb_memory_info(&info);
	head = memremap(info.root_pa, sizeof(*head), MEMREMAP_WB);
	if (!head)
		return -ENOMEM;
	INIT_DELAYED_WORK(&look_work, look);
	rc = kmb_digest_init();
	if (rc)
		memunmap(head);
	return rc;
}

/* After the device is gone: nobody arms any more. */
void kmb_fire_exit(void)
{
	cancel_delayed_work_sync(&look_work);
	kmb_arm_exit();
	kmb_digest_exit();
	memunmap(head);
}
