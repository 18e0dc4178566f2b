// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Saving the registers of the CPU it runs on into a struct vn_frame.  No
 * locks, no calls that could be traced into a loop: it runs in NMIs.
 */
#include "agent.h"
#include "vn_msr.h"

#include <linux/sched.h>
#include <linux/string.h>
#include <asm/desc.h>
#include <asm/special_insns.h>
#include <asm/tsc.h>

/* Indices into vn_frame.regs beyond pt_regs; the order of user_regs_struct */
enum { R_CS = 17, R_SS = 20, R_FS_BASE, R_GS_BASE, R_DS, R_ES, R_FS, R_GS };

static_assert(sizeof(struct vn_frame) * VN_MAX_CPUS <= VN_BR_SAMPLES - VN_BR_CRASH_REGS);
static_assert(sizeof(struct pt_regs) == (R_SS + 1) * sizeof(u64));

struct vn_frame *frame_of(u32 area, unsigned int cpu)
{
	return (struct vn_frame *)bridge_at(area) + cpu;
}

static u64 read_cr4(void)
{
	u64 cr4;

	/* __read_cr4() reads a shadow that modules cannot see on all kernels */
	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	return cr4;
}

static void save_segments(struct vn_frame *f)
{
	u16 ds, es, fs, gs;

	asm("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
	    : "=rm"(ds), "=rm"(es), "=rm"(fs), "=rm"(gs));
	f->regs[R_DS] = ds;
	f->regs[R_ES] = es;
	f->regs[R_FS] = fs;
	f->regs[R_GS] = gs;
}

/* In user mode the two GS bases are the other way round than here. */
static void save_bases(struct vn_frame *f, bool user)
{
	u64 fs, gs, kernel_gs;

	rdmsrq(MSR_FS_BASE, fs);
	rdmsrq(MSR_GS_BASE, gs);
	rdmsrq(MSR_KERNEL_GS_BASE, kernel_gs);
	f->regs[R_FS_BASE] = fs;
	f->regs[R_GS_BASE] = user ? kernel_gs : gs;
	f->kernel_gs_base = user ? gs : kernel_gs;
}

static void save_control(struct vn_frame *f)
{
	struct desc_ptr gdt, idt;
	u16 tr, ldt;

	asm volatile("sgdt %0; sidt %1" : "=m"(gdt), "=m"(idt));
	asm volatile("str %0; sldt %1" : "=rm"(tr), "=rm"(ldt));
	f->cr0 = native_read_cr0();
	f->cr2 = native_read_cr2();
	f->cr3 = __native_read_cr3();
	f->cr4 = read_cr4();
	rdmsrq(MSR_EFER, f->efer);
	f->gdt_base = gdt.address;
	f->gdt_limit = gdt.size;
	f->idt_base = idt.address;
	f->idt_limit = idt.size;
	f->tr = tr;
	f->ldt = ldt;
}

void frame_save(struct vn_frame *f, const struct pt_regs *regs, u32 flags)
{
	bool user = user_mode((struct pt_regs *)regs);

	WRITE_ONCE(f->seq, f->seq | 1);
	smp_wmb();
	f->tsc = rdtsc();
	memcpy(f->regs, regs, sizeof(*regs));
	/* the upper bits hold other things where the CPU has FRED */
	f->regs[R_CS] &= 0xffff;
	f->regs[R_SS] &= 0xffff;
	save_segments(f);
	save_bases(f, user);
	save_control(f);
	f->current_task = (unsigned long)current;
	f->flags = VN_FRAME_GP | VN_FRAME_CONTROL | (user ? VN_FRAME_USER : 0) | flags;
	smp_wmb();
	WRITE_ONCE(f->seq, f->seq + 1);
}

/* The other way; what a debugger set of segments is not taken. */
void frame_restore(const struct vn_frame *f, struct pt_regs *regs)
{
	unsigned long cs = regs->cs, ss = regs->ss;

	memcpy(regs, f->regs, sizeof(*regs));
	regs->cs = cs;
	regs->ss = ss;
}

void frame_copy(struct vn_frame *to, const struct vn_frame *from, u32 flags)
{
	struct vn_frame copy = *from;

	copy.seq = to->seq | 1;
	copy.flags |= flags;
	WRITE_ONCE(to->seq, copy.seq);
	smp_wmb();
	*to = copy;
	smp_wmb();
	WRITE_ONCE(to->seq, copy.seq + 1);
}
