/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between freeze.c, cpu_state.c and park.S. */
#ifndef AGENT_FREEZE_H
#define AGENT_FREEZE_H

#define CONTEXT_RSP	0x00
#define CONTEXT_CR0	0x08
#define CONTEXT_CR3	0x10
#define CONTEXT_CR4	0x18
#define CONTEXT_GS	0x20
#define CONTEXT_GDT	0x28
#define CONTEXT_IDT	0x38

#ifndef __ASSEMBLY__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>
#include <asm/desc_defs.h>

/**
 * struct park_context - what park.S needs to run C again on the same stack
 * @rsp: below it lie the registers that a function must preserve
 * @cr0: control register; also @cr3 @cr4
 * @cr3: see @cr0
 * @cr4: see @cr0
 * @gs: GS base, of the kernel's per-CPU area
 * @gdt: as SGDT stores it
 * @idt: as SIDT stores it
 */
struct park_context {
	u64 rsp;
	u64 cr0;
	u64 cr3;
	u64 cr4;
	u64 gs;
	struct desc_ptr gdt __aligned(8);
	struct desc_ptr idt __aligned(8);
};

static_assert(offsetof(struct park_context, cr4) == CONTEXT_CR4);
static_assert(offsetof(struct park_context, gs) == CONTEXT_GS);
static_assert(offsetof(struct park_context, gdt) == CONTEXT_GDT);
static_assert(offsetof(struct park_context, idt) == CONTEXT_IDT);

/* park.S: freeze_park() keeps the context, calls freeze_parked() and returns
 * when the CPU is sent to freeze_resume. */
void freeze_park(void);
extern char freeze_resume[];

/* freeze.c */
extern struct park_context park_context;
__visible void freeze_parked(void);

/* cpu_state.c: the rest of what INIT takes away; around freeze_park() */
void cpu_state_save(void);
void cpu_state_restore(void);
#endif

#endif /* AGENT_FREEZE_H */
