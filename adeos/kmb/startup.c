// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * INIT, SIPI and the trampoline: how a CPU is taken back and set going.
 *
 * Parking is confirmed.  INIT alone cannot be seen to have worked, so each CPU
 * is sent through the park half of the trampoline, which writes a fresh nonce
 * into a word of its own: the CPU has left whatever it did.  A second INIT then
 * leaves it waiting for SIPI, where no NMI and no stray interrupt runs code.
 *
 * All waits sleep or are some microseconds short.  Those of a call of the daemon
 * sleep without kmb_lock: a CPU that does not come keeps nobody from watching,
 * parking and starting the other vnodes.
 */
#include "kmb.h"

#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <asm/processor.h>
#include <asm/tsc.h>

#include "trampoline.h"
#include "vn_lapic.h"

#define SIPI_GAP_US	200	/* before a SIPI is repeated */
#define RETRY_US	20000	/* before a CPU gets INIT once more; doubled each time */
#define BOOT_WAIT_US	250000	/* before the boot CPU is tried anew; doubled each time */
#define BOOT_ATTEMPTS	3
#define RETRY_PARK_MS	500

static int init_us = -1;
module_param(init_us, int, 0644);
MODULE_PARM_DESC(init_us, "microseconds between INIT and SIPI, -1: as the kernel does");

static uint start_retries;
module_param(start_retries, uint, 0444);
MODULE_PARM_DESC(start_retries, "how often a CPU did not answer SIPI and was tried again");
static uint skip_sipi;
module_param(skip_sipi, uint, 0644);
MODULE_PARM_DESC(skip_sipi, "for tests: leave SIPI out in so many attempts");

/* A vnode that is not busy is looked at by the kernel itself, which lets nobody in between. */
static void nap(const struct kmb_vnode *v, u32 us, u32 at_most_us)
{
	bool busy = v->busy;

	if (busy)
		mutex_unlock(&kmb_lock);
	usleep_range(us, at_most_us);
	if (busy)
		mutex_lock(&kmb_lock);
}

/* 10 ms by the MP specification; 0 on CPUs of this century, by the rule of
 * smp_quirk_init_udelay() (arch/x86/kernel/smpboot.c, 6.1). */
static void wait_after_init(const struct kmb_vnode *v)
{
	const struct cpuinfo_x86 *c = &boot_cpu_data;
	int us = READ_ONCE(init_us);

	if (us < 0) {
		bool modern = (c->x86_vendor == X86_VENDOR_INTEL && c->x86 >= 6) ||
			      (c->x86_vendor == X86_VENDOR_AMD && c->x86 >= 0xf) ||
			      (c->x86_vendor == X86_VENDOR_HYGON && c->x86 >= 0x18);

		us = modern ? 0 : 10000;
	}
	if (us > 10)
		nap(v, us, us + us / 4);
	else
		udelay(10);
}

static void send_init(u32 apicid)
{
	vn_lapic_icr(APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT, apicid);
}

static void send_init_end(u32 apicid)
{
	vn_lapic_icr(APIC_INT_LEVELTRIG | APIC_DM_INIT, apicid);
}

static void send_sipi(const struct kmb_vnode *v, u32 apicid)
{
	vn_lapic_icr(APIC_DM_STARTUP | (v->slot_base >> PAGE_SHIFT), apicid);
}

/* Bit i of the result stands for CPU i of the vnode, here and below. */
static void init_cpus(struct kmb_vnode *v, u32 which)
{
	u32 i;

	for (i = 0; i < v->ncpus; i++)
		if (which & BIT(i))
			send_init(v->cpu[i]->apicid);
	wait_after_init(v);
	for (i = 0; i < v->ncpus; i++)
		if (which & BIT(i))
			send_init_end(v->cpu[i]->apicid);
}

static void sipi_cpus(struct kmb_vnode *v, u32 which)
{
	u32 i;

	for (i = 0; i < v->ncpus; i++)
		if (which & BIT(i))
			send_sipi(v, v->cpu[i]->apicid);
}

static u32 unconfirmed(const struct kmb_vnode *v, struct vn_trampoline *t, u32 which)
{
	u32 i, left = 0;

	for (i = 0; i < v->ncpus; i++)
		if ((which & BIT(i)) && READ_ONCE(t->ack[i]) != v->nonce)
			left |= BIT(i);
	return left;
}

/* Microseconds of polling first, for a quick answer; then naps. */
static u32 wait_confirmed(const struct kmb_vnode *v, struct vn_trampoline *t,
			  u32 which, u32 us)
{
	ktime_t end = ktime_add_us(ktime_get(), us);
	int i;

	for (i = 0; i < 10 && which; i++) {
		udelay(5);
		which = unconfirmed(v, t, which);
	}
	while (which && ktime_before(ktime_get(), end)) {
		nap(v, 20, 50);
		which = unconfirmed(v, t, which);
	}
	return which;
}

/* The page of the trampoline as it shall be; guarded by kmb_lock */
static union {
	struct vn_trampoline t;
	u64 word[PAGE_SIZE / sizeof(u64)];
} wanted;

/* Writes what differs alone: an emulator that has the code translated keeps it, which is
 * worth a millisecond a time. */
static struct vn_trampoline *lay_wanted(struct kmb_vnode *v)
{
	u64 *at = v->page;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(wanted.word); i++)
		if (READ_ONCE(at[i]) != wanted.word[i])
			WRITE_ONCE(at[i], wanted.word[i]);
	return v->page;
}

/* For lay_wanted(), once the rest is set. */
static struct vn_trampoline *want_trampoline(const struct kmb_vnode *v, u32 mode)
{
	struct vn_trampoline *t = &wanted.t;
	size_t size = vn_trampoline_end - vn_trampoline_start;
	u32 i;

	memset(&wanted, 0, sizeof(wanted));
	memcpy(&wanted, vn_trampoline_start, size);
	t->mode = mode;
	t->far_offset = v->slot_base + (vn_trampoline_long - vn_trampoline_start);
	t->far_segment = 0x10;
	t->gdt_limit = sizeof(t->gdt) - 1;
	t->gdt_base = v->slot_base + offsetof(struct vn_trampoline, gdt);
	t->ncpus = v->ncpus;
	for (i = 0; i < v->ncpus; i++)
		t->apicid[i] = v->cpu[i]->apicid;
	return t;
}

static u32 confirm_parking(struct kmb_vnode *v, struct vn_trampoline *t, u32 timeout_ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), timeout_ms);
	u32 left = GENMASK(v->ncpus - 1, 0), retry_us = RETRY_US;
	s64 us;

	do {
		init_cpus(v, left);
		sipi_cpus(v, left);
		left = wait_confirmed(v, t, left, SIPI_GAP_US);
		if (!left)
			break;
		sipi_cpus(v, left);
		us = ktime_us_delta(end, ktime_get());
		left = wait_confirmed(v, t, left, clamp_t(s64, us, 0, retry_us));
		/* a starved emulated CPU must not be reset for ever on its way */
		retry_us *= 2;
	} while (left && ktime_before(ktime_get(), end));
	return left;
}

int kmb_startup_park(struct kmb_vnode *v, u32 timeout_ms, u32 *parked, u64 *tsc)
{
	struct vn_trampoline *t = want_trampoline(v, TR_MODE_PARK);
	u32 i, lost;

	/* never 0, which the cleared words hold */
	v->nonce = (v->nonce + 1) ?: 1;
	t->nonce = v->nonce;
	t = lay_wanted(v);
	lost = confirm_parking(v, t, timeout_ms);
	*tsc = rdtsc();
	init_cpus(v, GENMASK(v->ncpus - 1, 0) & ~lost);
	*parked = 0;
	for (i = 0; i < v->ncpus; i++) {
		bool ok = !(lost & BIT(i));

		v->cpu[i]->state = ok ? KMB_CPU_PARKED : KMB_CPU_LOST;
		*parked += ok;
		if (!ok)
			pr_err("vnode %u: CPU %u does not confirm its parking within %u ms\n",
			       v->id, v->cpu[i]->cpu, timeout_ms);
	}
	return lost ? -ETIMEDOUT : 0;
}

static bool wait_long_mode(const struct kmb_vnode *v, struct vn_trampoline *t, u32 us)
{
	ktime_t end = ktime_add_us(ktime_get(), us);
	int i;

	for (i = 0; i < 10; i++) {
		udelay(5);
		if (READ_ONCE(t->progress) == TR_AT_LONG)
			return true;
	}
	do {
		nap(v, 20, 50);
		if (READ_ONCE(t->progress) == TR_AT_LONG)
			return true;
	} while (ktime_before(ktime_get(), end));
	return false;
}

/* Whether it may be taken for lost: it goes no further then, and else it has come after all. */
static bool give_up(struct vn_trampoline *t)
{
	u32 at = READ_ONCE(t->progress), was;

	while (at != TR_AT_LONG) {
		was = cmpxchg(&t->progress, at, TR_TOO_LATE);
		if (was == at)
			return true;
		at = was;
	}
	return false;
}

static bool try_boot_half(const struct kmb_vnode *v, struct vn_trampoline *t, u32 wait_us)
{
	u32 apicid = v->cpu[0]->apicid, skip = READ_ONCE(skip_sipi);

	if (skip)
		WRITE_ONCE(skip_sipi, skip - 1);
	else
		send_sipi(v, apicid);
	if (wait_long_mode(v, t, SIPI_GAP_US))
		return true;
	if (!skip)
		send_sipi(v, apicid);
	return wait_long_mode(v, t, wait_us);
}

/* What the boot half of the trampoline is given, and how long it may take (0: the usual). */
struct boot {
	u32 wait_us;
	u64 cr3;
	u64 entry;
	u64 rsi;
	u32 cr4;
	u32 efer;
};

static struct vn_trampoline *lay_boot_half(struct kmb_vnode *v, const struct boot *boot)
{
	struct vn_trampoline *t = want_trampoline(v, TR_MODE_BOOT);

	t->cr3 = boot->cr3;
	t->entry = boot->entry;
	t->rsi = boot->rsi;
	t->cr4 = boot->cr4;
	t->efer = boot->efer;
	return lay_wanted(v);
}

/*
 * A CPU may miss its SIPI: an emulated one that was starved, a real one whose
 * INIT took longer.  It is parked anew, with the confirmation, and tried again.
 */
static int run_boot_half(struct kmb_vnode *v, const struct boot *words, u64 *tsc)
{
	struct kmb_cpu *boot = v->cpu[0];
	u32 attempts = words->wait_us ? 1 : BOOT_ATTEMPTS;
	u32 attempt, i, parked, wait_us = words->wait_us ?: BOOT_WAIT_US;
	u64 parked_tsc;

	for (attempt = 1;; attempt++, wait_us *= 2) {
		struct vn_trampoline *t = lay_boot_half(v, words);

		*tsc = rdtsc();
		/* the kernel of the boot CPU starts the others as it likes */
		for (i = 0; i < v->ncpus; i++)
			v->cpu[i]->state = KMB_CPU_STARTED;
		if (try_boot_half(v, t, wait_us) || !give_up(t))
			break;
		if (attempt == attempts) {
			pr_err("vnode %u: CPU %u does not start within %u us, attempt %u\n", v->id,
			       boot->cpu, wait_us, attempt);
			boot->state = KMB_CPU_LOST;
			return -ETIMEDOUT;
		}
		start_retries++;
		pr_warn("vnode %u: CPU %u does not answer SIPI: INIT and attempt %u of %u\n", v->id,
			boot->cpu, attempt + 1, BOOT_ATTEMPTS);
		if (kmb_startup_park(v, RETRY_PARK_MS, &parked, &parked_tsc))
			return -ETIMEDOUT;
	}
	v->start_tsc = *tsc;
	return 0;
}

int kmb_startup_boot(struct kmb_vnode *v, struct kmb_start *start)
{
	struct boot boot = {
		.cr3 = start->cr3,
		.entry = start->entry,
		.rsi = start->rsi,
		.cr4 = X86_CR4_PAE,
		.wait_us = start->wait_us,
		.efer = EFER_LME,
	};

	return run_boot_half(v, &boot, &start->tsc);
}

/* The vnode's own page tables may forbid execution, which needs EFER.NXE. */
int kmb_startup_resume(struct kmb_vnode *v, struct kmb_resume *resume)
{
	struct boot boot = {
		.cr3 = resume->cr3,
		.entry = resume->entry,
		.cr4 = resume->cr4,
		.wait_us = resume->wait_us,
		.efer = EFER_LME | EFER_NX,
	};

	return run_boot_half(v, &boot, &resume->tsc);
}
