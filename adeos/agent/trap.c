// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where a CPU stops for a debugger in another kernel: NMIs, breakpoints,
 * watchpoints, single steps.
 *
 * A CPU does not wait inside of the NMI or exception that stops it.  From
 * there the debugger could not set what the handlers themselves restore on
 * their way out: DR7, and the frame an NMI returns by, which is a copy.  The
 * handler returns to a stub instead, with interrupts off, on the stack of what
 * was interrupted; the stub waits and then loads all registers anew.
 *
 * The stub cannot run in the entry code, for page tables, GS and stack may be
 * those of user space there: the CPU is stepped on until it is out of it.  What
 * runs in user mode waits in the handler: the frames of that are the true ones.
 *
 * No NMI stops a CPU on a stack of the IST.  A step there, in what a debug
 * exception runs, would lay the next frame of that over the first: the CPU then
 * returns to the same instruction for ever, or to user space's GS.
 */
#include "agent.h"

#include <linux/irq_work.h>
#include <linux/kdebug.h>
#include <linux/notifier.h>
#include <linux/objtool.h>
#include <linux/percpu.h>
#include <asm/cpu_entry_area.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/processor.h>

#define INT3		0xcc
#define SLOTS		4
#define BUSY_OFFSET	168	/* of trap.busy, for the stub */

/**
 * struct trap - of one CPU
 * @regs: the true registers while the stub runs
 * @busy: it is parked, or on its way to or from there
 * @cause: why
 * @dr6: what was hit since it ran
 * @stepping: the debugger wants a trap after one instruction
 * @step: VN_DBG_F_* of that step; VN_DBG_F_MASK when interrupts were on
 * @step_ip: the instruction
 * @leaving: stepped out of the entry code because of @cause
 * @slots: the debugger's bits in DR7
 * @load_dr7: loads DR7 after an NMI
 */
struct trap {
	struct pt_regs regs;
	bool busy;
	bool stepping;
	bool leaving;
	enum vn_cause cause;
	unsigned long dr6;
	unsigned long slots;
	u32 step;
	unsigned long step_ip;
	struct irq_work load_dr7;
};

static_assert(offsetof(struct trap, busy) == BUSY_OFFSET);

/* What an NMI from kernel mode returns by: it lies above the registers
 * (asm_exc_nmi, arch/x86/entry/entry_64.S, "iret" frame). */
struct nmi_frame {
	unsigned long ip, cs, flags, sp, ss;
};

static DEFINE_PER_CPU(struct trap, traps);

void vnode_trap_stub(void);
extern char vnode_trap_end[];
__visible struct pt_regs *vnode_trap_park(void);

asm(".pushsection .text, \"ax\"\n"
    ".globl vnode_trap_stub, vnode_trap_end\n"
    ".type vnode_trap_stub, @function\n"
    "vnode_trap_stub:\n"
    "	endbr64\n"	/* its address is taken */
    "	cld\n"
    "	and $-16, %rsp\n"
    "	call vnode_trap_park\n"
    "	movb $0, " __stringify(BUSY_OFFSET) "(%rax)\n"
    "	mov %rax, %rsp\n"
    "	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "	pop %r11; pop %r10; pop %r9; pop %r8; pop %rax; pop %rcx\n"
    "	pop %rdx; pop %rsi; pop %rdi\n"
    "	add $8, %rsp\n"
    "	iretq\n"
    "vnode_trap_end:\n"
    ".size vnode_trap_stub, . - vnode_trap_stub\n"
    ".popsection");
STACK_FRAME_NON_STANDARD(vnode_trap_stub);

static bool in_stub(unsigned long ip)
{
	return ip >= (unsigned long)vnode_trap_stub && ip < (unsigned long)vnode_trap_end;
}

/* Enable, length and kind of a slot in DR7 */
static unsigned long bits_of(unsigned int slot)
{
	return 3UL << (2 * slot) | 15UL << (16 + 4 * slot);
}

static bool in_entry_code(unsigned long ip)
{
	const struct vn_control *c = control_area();

	return ip >= READ_ONCE(c->entry_start) && ip < READ_ONCE(c->entry_end);
}

/* The area begins with the GDT. */
static bool on_exception_stack(unsigned long sp)
{
	const struct cpu_entry_area *area;
	struct desc_ptr gdt;

	native_store_gdt(&gdt);
	area = (void *)gdt.address;
	return sp - (unsigned long)&area->estacks <= sizeof(area->estacks);
}

static bool is_breakpoint(unsigned long ip)
{
	const struct vn_control *c = control_area();
	u32 i, n = min_t(u32, READ_ONCE(c->nbreaks), VN_MAX_BREAKPOINTS);

	for (i = 0; i < n; i++)
		if (READ_ONCE(c->breakpoint[i]) == ip)
			return true;
	return false;
}

bool trap_busy(void)
{
	return this_cpu_read(traps.busy);
}

static void set_slots(struct trap *t, const struct vn_debug *d)
{
	unsigned long wanted = READ_ONCE(d->dr7), mine = 0;
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		if (wanted >> (2 * i) & 3)
			mine |= bits_of(i);
	set_debugreg(READ_ONCE(d->dr[0]), 0);
	set_debugreg(READ_ONCE(d->dr[1]), 1);
	set_debugreg(READ_ONCE(d->dr[2]), 2);
	set_debugreg(READ_ONCE(d->dr[3]), 3);
	this_cpu_write(cpu_dr7, (this_cpu_read(cpu_dr7) & ~t->slots) | (wanted & mine));
	t->slots = mine;
}

static void load_dr7(struct irq_work *work)
{
	set_debugreg(this_cpu_read(cpu_dr7), 7);
}

/*
 * Undoes what a step itself did to the flags, also to those that were pushed.
 * Not left to the debugger, who may be gone by now.
 */
static void end_step(struct trap *t, struct pt_regs *regs)
{
	unsigned long mask = t->step & VN_DBG_F_MASK ? X86_EFLAGS_IF : 0;
	bool executed = regs->ip != t->step_ip;
	unsigned long *pushed = (unsigned long *)regs->sp;

	/* while leaving, the trap flag is another */
	if (!t->stepping || t->leaving)
		return;
	t->stepping = false;
	regs->flags &= ~X86_EFLAGS_TF;
	if (!(executed && (t->step & VN_DBG_F_CLI)))
		regs->flags |= mask;
	if (executed && (t->step & VN_DBG_F_PUSHF) && !user_mode(regs))
		*pushed = (*pushed & ~X86_EFLAGS_TF) | mask;
}

static void begin_step(struct trap *t, struct pt_regs *regs, u32 flags)
{
	t->stepping = true;
	t->step = flags;
	t->step_ip = regs->ip;
	regs->flags |= X86_EFLAGS_TF;
	if (!(regs->flags & X86_EFLAGS_IF))
		t->step &= ~VN_DBG_F_MASK;
	if (t->step & VN_DBG_F_MASK)
		regs->flags &= ~X86_EFLAGS_IF;
}

/* A CPU that waited is let run with these registers. */
static void resume(struct trap *t, struct pt_regs *regs, u32 flags, bool in_nmi)
{
	t->leaving = false;
	t->dr6 = 0;
	regs->flags &= ~X86_EFLAGS_TF;
	if (flags & VN_DBG_F_STEP)
		begin_step(t, regs, flags);
	/* or a hardware breakpoint at this very instruction would hit again */
	regs->flags |= X86_EFLAGS_RF;
	if (!(flags & VN_DBG_F_HW))
		return;
	set_slots(t, mailbox_of(raw_smp_processor_id()));
	if (in_nmi)
		irq_work_queue(&t->load_dr7);
	else
		load_dr7(NULL);
}

/* Of the stub; the registers to go on with. */
__visible struct pt_regs *vnode_trap_park(void)
{
	struct trap *t = this_cpu_ptr(&traps);

	resume(t, &t->regs, debug_park(&t->regs, t->cause, t->dr6), false);
	return &t->regs;
}

static void wait_here(struct trap *t, struct pt_regs *regs, enum vn_cause cause, bool in_nmi)
{
	if (regs->flags & X86_EFLAGS_TF)
		end_step(t, regs);
	t->busy = true;
	resume(t, regs, debug_park(regs, cause, t->dr6), in_nmi);
	t->busy = false;
}

/* The handler whose registers these are will return to the stub. */
static void send_to_stub(struct trap *t, struct pt_regs *regs, enum vn_cause cause)
{
	/* if it is not set, a fault of the stepped instruction is served: the step ends later */
	if (regs->flags & X86_EFLAGS_TF)
		end_step(t, regs);
	t->regs = *regs;
	t->regs.flags &= ~X86_EFLAGS_TF;
	t->cause = cause;
	t->busy = true;
	regs->ip = (unsigned long)vnode_trap_stub;
	regs->flags &= ~(X86_EFLAGS_IF | X86_EFLAGS_TF);
}

static bool is_frame_of(const struct nmi_frame *f, const struct pt_regs *regs)
{
	return f->ip == regs->ip && f->cs == regs->cs && f->flags == regs->flags &&
	       f->sp == regs->sp && f->ss == regs->ss;
}

/* In an NMI: who asks sends another one when this one comes to nothing. */
void trap_stop(struct pt_regs *regs)
{
	struct trap *t = this_cpu_ptr(&traps);
	struct nmi_frame *f = (struct nmi_frame *)(regs + 1);

	/* without control nothing is known of the entry code */
	if (t->busy || in_stub(regs->ip) || !control_held())
		return;
	if (!user_mode(regs) && on_exception_stack(regs->sp))
		return;
	/* sysret ends the stepping unseen */
	if (t->leaving && (regs->flags & X86_EFLAGS_TF))
		return;
	if (user_mode(regs)) {
		wait_here(t, regs, VN_C_ASKED, true);
		return;
	}
	/* it differs when the NMI is to be repeated */
	if (!is_frame_of(f, regs))
		return;
	if (in_entry_code(regs->ip)) {
		t->cause = VN_C_ASKED;
		t->leaving = true;
		regs->flags |= X86_EFLAGS_TF;
	} else {
		send_to_stub(t, regs, VN_C_ASKED);
	}
	f->flags = regs->flags;
	f->ip = regs->ip;
}

/* Of the hard timer interrupt: watchpoints of a debugger that is gone go too. */
void trap_tick(void)
{
	struct trap *t = this_cpu_ptr(&traps);

	if (!t->slots || control_held())
		return;
	this_cpu_write(cpu_dr7, this_cpu_read(cpu_dr7) & ~t->slots);
	t->slots = 0;
	load_dr7(NULL);
}

static int on_breakpoint(struct trap *t, struct pt_regs *regs)
{
	unsigned long ip = regs->ip - 1;

	if (user_mode(regs))
		return NOTIFY_DONE;
	if (control_held() && is_breakpoint(ip)) {
		regs->ip = ip;
		if (!t->busy)
			send_to_stub(t, regs, VN_C_BREAK);
		return NOTIFY_STOP;
	}
	/* the debugger's time is over, but kmb.ko has not come to this one yet */
	while (READ_ONCE(*(u8 *)ip) == INT3 && is_breakpoint(ip) && !control_held())
		cpu_relax();
	/* it was taken away after this CPU had run into it */
	if (READ_ONCE(*(u8 *)ip) == INT3 && !is_breakpoint(ip))
		return NOTIFY_DONE;
	regs->ip = ip;
	return NOTIFY_STOP;
}

static unsigned long hits(const struct trap *t, unsigned long dr6)
{
	unsigned long mine = t->stepping || t->leaving ? dr6 & DR_STEP : 0;
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		if ((t->slots & bits_of(i)) && (dr6 & DR_TRAP0 << i))
			mine |= DR_TRAP0 << i;
	return mine;
}

static void on_hit(struct trap *t, struct pt_regs *regs, unsigned long mine)
{
	if (!t->leaving)
		t->cause = VN_C_DEBUG;
	if (mine & DR_STEP)
		end_step(t, regs);
	t->dr6 |= mine;
	if (!user_mode(regs) && in_entry_code(regs->ip)) {
		t->leaving = true;
		regs->flags |= X86_EFLAGS_TF;
		return;
	}
	t->leaving = false;
	if (user_mode(regs))
		wait_here(t, regs, t->cause, false);
	else
		send_to_stub(t, regs, t->cause);
}

static int on_debug(struct trap *t, struct pt_regs *regs, unsigned long *dr6)
{
	unsigned long mine = hits(t, *dr6);

	if (!mine)
		return NOTIFY_DONE;
	*dr6 &= ~mine;
	regs->flags |= X86_EFLAGS_RF;
	if (!control_held()) {
		if (mine & DR_STEP)
			end_step(t, regs);
		t->leaving = false;
		regs->flags &= ~X86_EFLAGS_TF;
	} else if (!t->busy) {
		on_hit(t, regs, mine);
	}
	return *dr6 & (DR_STEP | DR_TRAP_BITS) ? NOTIFY_DONE : NOTIFY_STOP;
}

static int on_trap(struct notifier_block *nb, unsigned long code, void *data)
{
	const struct die_args *args = data;
	struct trap *t = this_cpu_ptr(&traps);

	if (!args->regs || !cpu_has_mailbox(raw_smp_processor_id()))
		return NOTIFY_DONE;
	if (code == DIE_INT3)
		return on_breakpoint(t, args->regs);
	if (code == DIE_DEBUG)
		return on_debug(t, args->regs, (unsigned long *)args->err);
	return NOTIFY_DONE;
}

static struct notifier_block trap_nb = {
	.notifier_call = on_trap,
	.priority = INT_MAX,
};

/*
 * hw_breakpoint.c has this priority too and was first; it stops the chain at a
 * debug register that it does not know.  So we move to the chain's head, once
 * the debugger has told where that is.
 */
bool trap_goes_first(void)
{
	u64 address = READ_ONCE(control_area()->die_chain);
	struct atomic_notifier_head *chain = (void *)address;
	struct notifier_block *first, *before;

	if (!chain || IS_ENABLED(CONFIG_PREEMPT_RT))
		return false;
	if (rcu_access_pointer(chain->head) == &trap_nb)
		return true;
	if (!spin_trylock(&chain->lock))
		return false;
	first = rcu_access_pointer(chain->head);
	for (before = first; before; before = rcu_access_pointer(before->next))
		if (rcu_access_pointer(before->next) == &trap_nb)
			break;
	if (before) {
		/* a reader on its way sees every other entry in any order */
		rcu_assign_pointer(before->next, rcu_access_pointer(trap_nb.next));
		rcu_assign_pointer(trap_nb.next, first);
		rcu_assign_pointer(chain->head, &trap_nb);
	}
	spin_unlock(&chain->lock);
	return before;
}

int debug_traps_init(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu)
		per_cpu(traps, cpu).load_dr7 = IRQ_WORK_INIT_HARD(load_dr7);
	return register_die_notifier(&trap_nb);
}
