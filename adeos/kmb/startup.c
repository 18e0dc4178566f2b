// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * INIT, SIPI and the trampoline: how a CPU is taken back and set going.
 *
 * Parking is confirmed.  INIT alone cannot be seen to have worked, so each CPU
 * is sent through the park half of the trampoline, which writes a fresh nonce
 * into a word of its own: the CPU has left whatever it did.  A second INIT then
 * leaves it waiting for SIPI, where no NMI and no stray interrupt runs code.
 *
 * All waits sleep or are some microseconds short.
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
#define BOOT_WAIT_MS	1000

static int init_us = -1;
module_param(init_us, int, 0644);
MODULE_PARM_DESC(init_us, "microseconds between INIT and SIPI, -1: as the kernel does");

static u32 nonce;

/* 10 ms by the MP specification; 0 on CPUs of this century, by the rule of
 * smp_quirk_init_udelay() (arch/x86/kernel/smpboot.c, 6.1). */
static void wait_after_init(void)
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
		usleep_range(us, us + us / 4);
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
	wait_after_init();
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
		if ((which & BIT(i)) && READ_ONCE(t->ack[i]) != nonce)
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
		usleep_range(20, 50);
		which = unconfirmed(v, t, which);
	}
	return which;
}

static struct vn_trampoline *lay_trampoline(struct kmb_vnode *v, u32 mode)
{
	struct vn_trampoline *t = v->page;
	size_t size = vn_trampoline_end - vn_trampoline_start;
	u32 i;

	memset(v->page, 0, PAGE_SIZE);
	memcpy(v->page, vn_trampoline_start, size);
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
	struct vn_trampoline *t = lay_trampoline(v, TR_MODE_PARK);
	u32 i, lost;

	/* never 0, which the cleared words hold */
	nonce = (nonce + 1) ?: 1;
	t->nonce = nonce;
	lost = confirm_parking(v, t, timeout_ms);
	*tsc = rdtsc();
	init_cpus(v, GENMASK(v->ncpus - 1, 0) & ~lost);
	*parked = 0;
	for (i = 0; i < v->ncpus; i++) {
		bool ok = !(lost & BIT(i));

		v->cpu[i]->state = ok ? KMB_CPU_PARKED : KMB_CPU_LOST;
		*parked += ok;
		if (!ok)
			pr_err("vnode %u: CPU %u does not confirm its parking\n",
			       v->id, v->cpu[i]->cpu);
	}
	return lost ? -ETIMEDOUT : 0;
}

static bool wait_long_mode(struct vn_trampoline *t, u32 us)
{
	ktime_t end = ktime_add_us(ktime_get(), us);
	int i;

	for (i = 0; i < 10; i++) {
		udelay(5);
		if (READ_ONCE(t->progress) == TR_AT_LONG)
			return true;
	}
	do {
		usleep_range(20, 50);
		if (READ_ONCE(t->progress) == TR_AT_LONG)
			return true;
	} while (ktime_before(ktime_get(), end));
	return false;
}

static int run_boot_half(struct kmb_vnode *v, struct vn_trampoline *t, u64 *tsc)
{
	struct kmb_cpu *boot = v->cpu[0];
	u32 i;

	*tsc = rdtsc();
	/* the kernel of the boot CPU starts the others as it likes */
	for (i = 0; i < v->ncpus; i++)
		v->cpu[i]->state = KMB_CPU_STARTED;
	send_sipi(v, boot->apicid);
	if (!wait_long_mode(t, SIPI_GAP_US)) {
		send_sipi(v, boot->apicid);
		if (!wait_long_mode(t, BOOT_WAIT_MS * 1000)) {
			pr_err("vnode %u: CPU %u does not start (progress %u)\n",
			       v->id, boot->cpu, READ_ONCE(t->progress));
			boot->state = KMB_CPU_LOST;
			return -ETIMEDOUT;
		}
	}
	v->start_tsc = *tsc;
	return 0;
}

int kmb_startup_boot(struct kmb_vnode *v, struct kmb_start *start)
{
	struct vn_trampoline *t = lay_trampoline(v, TR_MODE_BOOT);

	t->cr3 = start->cr3;
	t->entry = start->entry;
	t->rsi = start->rsi;
	t->cr4 = X86_CR4_PAE;
	t->efer = EFER_LME;
	return run_boot_half(v, t, &start->tsc);
}

/* The vnode's own page tables may forbid execution, which needs EFER.NXE. */
int kmb_startup_resume(struct kmb_vnode *v, struct kmb_resume *resume)
{
	struct vn_trampoline *t = lay_trampoline(v, TR_MODE_BOOT);

	t->cr3 = resume->cr3;
	t->entry = resume->entry;
	t->cr4 = resume->cr4;
	t->efer = EFER_LME | EFER_NX;
	return run_boot_half(v, t, &resume->tsc);
}
