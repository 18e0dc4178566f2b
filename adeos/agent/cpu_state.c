// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What INIT takes away of a CPU and park.S does not keep: model specific
 * registers, FPU, task register, LDT, selectors, debug registers.
 *
 * The kernel's own save_processor_state() is not exported; this is as much of
 * it as exported symbols reach.  MTRRs, microcode and machine check banks
 * outlive INIT.
 */
#include "agent.h"

#include <linux/kernel.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xcr.h>
#include <asm/segment.h>
#include <asm/special_insns.h>
#include <asm/x86_init.h>

#include "freeze.h"
#include "vn_msr.h"

#define TSS_AVAILABLE	9	/* descriptor type; LTR refuses a busy one */

#ifndef MSR_IA32_S_CET
#define MSR_IA32_S_CET	0x000006a2
#endif

/**
 * struct kept_msr - a model specific register
 * @number: of it
 * @exists: this CPU has it
 * @value: before INIT
 */
struct kept_msr {
	u32 number;
	bool exists;
	u64 value;
};

static struct kept_msr msrs[] = {
	{ MSR_EFER }, { MSR_STAR }, { MSR_LSTAR }, { MSR_CSTAR }, { MSR_SYSCALL_MASK },
	{ MSR_IA32_SYSENTER_CS }, { MSR_IA32_SYSENTER_ESP }, { MSR_IA32_SYSENTER_EIP },
	{ MSR_IA32_CR_PAT }, { MSR_TSC_AUX }, { MSR_IA32_MISC_ENABLE }, { MSR_IA32_SPEC_CTRL },
	{ MSR_IA32_XSS }, { MSR_IA32_S_CET },
};

static struct {
	u64 xcr0, cr2, fs_base, kernel_gs_base;
	u16 ds, es, fs, gs, tr, ldt;
} kept;

void cpu_state_save(void)
{
	size_t i;

	kernel_fpu_begin();
	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		msrs[i].exists = !rdmsrq_safe(msrs[i].number, &msrs[i].value);
	rdmsrq(MSR_FS_BASE, kept.fs_base);
	rdmsrq(MSR_KERNEL_GS_BASE, kept.kernel_gs_base);
	kept.cr2 = native_read_cr2();
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		kept.xcr0 = xgetbv(XCR_XFEATURE_ENABLED_MASK);
	savesegment(ds, kept.ds);
	savesegment(es, kept.es);
	savesegment(fs, kept.fs);
	savesegment(gs, kept.gs);
	asm volatile("str %0; sldt %1" : "=m"(kept.tr), "=m"(kept.ldt));
	x86_platform.save_sched_clock_state();
}

/* Only what differs: some take no write on some CPUs. */
static void restore_msrs(void)
{
	u64 now;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(msrs); i++)
		if (msrs[i].exists && !rdmsrq_safe(msrs[i].number, &now) && now != msrs[i].value)
			wrmsrq_safe(msrs[i].number, msrs[i].value);
}

static void restore_tables(void)
{
	int cpu = smp_processor_id();

	load_direct_gdt(cpu);
	get_cpu_gdt_rw(cpu)[GDT_ENTRY_TSS].type = TSS_AVAILABLE;
	asm volatile("ltr %0; lldt %1" : : "m"(kept.tr), "m"(kept.ldt));
	load_fixmap_gdt(cpu);
}

void cpu_state_restore(void)
{
	restore_msrs();
	native_write_cr2(kept.cr2);
	restore_tables();
	loadsegment(ds, kept.ds);
	loadsegment(es, kept.es);
	loadsegment(fs, kept.fs);
	load_gs_index(kept.gs);
	/* the selectors have cleared the bases */
	wrmsrq(MSR_FS_BASE, kept.fs_base);
	wrmsrq(MSR_KERNEL_GS_BASE, kept.kernel_gs_base);
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		xsetbv(XCR_XFEATURE_ENABLED_MASK, kept.xcr0);
	kernel_fpu_end();
	hw_breakpoint_restore();
	x86_platform.restore_sched_clock_state();
}
